"""What a publisher offers, for real: the sample bundle's archives, and the sample server in a thread with its request log."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
BUNDLE = REPOSITORY / "tests" / "fixtures" / "sample"
REAL = "hcad/2025/Real_acct_owner.zip"
HEARINGS = "hcad/2019/Hearing_files.zip"
TRAVIS = "travis/2019/Appraisal_Export.zip"


def script(name: str) -> Any:
    """A module of `scripts/`."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


def members(archive: Path) -> dict[str, bytes]:
    """The members of a zip, by name."""
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


class SampleServer:
    """The sample server in a thread, with its request log."""

    def __init__(self, root: Path, log: Path) -> None:
        self.root, self._log = root, log
        root.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        module = script("sample_server")
        self.failing: set[str] = set()
        failing = self.failing

        class Handler(module.SampleHandler):
            """Answers GET with 503 where the test says so; HEAD stays right."""

            def answer(self) -> None:
                if self.command == "GET" and self.path in failing:
                    self.respond_text(module.HTTPStatus.SERVICE_UNAVAILABLE)
                else:
                    super().answer()

        self._server = module.make_server(root, log_fd=self._descriptor, handler=Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def requests(self) -> list[str]:
        """`METHOD path status bytes`, in order."""
        return self._log.read_text().splitlines()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        os.close(self._descriptor)
