from __future__ import annotations

import importlib.util
import io
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.download import DownloadManager

#: Seconds for a server that answers at once: no test meets them unless the machine stands still for that long.
PATIENT = (30.0, 30.0)


def _load_server_module() -> ModuleType:
    """The test folders are no packages: load the neighbour by its path, under a name of its own."""
    name = "hcad_hostile_server"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("hostile_server.py"))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def hostile() -> ModuleType:
    return _load_server_module()


@pytest.fixture
def server(hostile: ModuleType) -> Iterator[object]:
    with hostile.HostileServer() as running:
        yield running


@pytest.fixture(scope="session")
def archive() -> bytes:
    """A zip of about 300 kB that does not compress away."""
    text = b"".join(b"%013d\tMAIN ST\t%d\r\n" % (number * 7919, number**3) for number in range(20_000))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("real_acct.txt", text)
    return out.getvalue()


@pytest.fixture
def manager() -> DownloadManager:
    return DownloadManager(timeout_s=PATIENT, allow_addresses=["127.0.0.0/8"], chunk_bytes=16_384, backoff_s=0.01)


@pytest.fixture
def make_manager() -> Callable[..., DownloadManager]:
    def make(**settings: object) -> DownloadManager:
        usual: dict[str, object] = {
            "timeout_s": PATIENT,
            "allow_addresses": ["127.0.0.0/8"],
            "chunk_bytes": 16_384,
            "backoff_s": 0.01,
        }
        return DownloadManager(**(usual | settings))  # type: ignore[arg-type]

    return make
