"""Downloads as bars on a terminal: one line each, with bytes, rate and the time that is left.

``hcad-pipeline run`` starts Luigi with its output in a log file; what the downloading processes write down of their progress is read
here and shown on standard error, as long as that is a terminal. When the run ends, however it ends, the bars and the files are gone.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

from pipeline.download.progress import Progress, read_progress

if TYPE_CHECKING:
    from tqdm import tqdm

_REFRESH_S = 0.5
_WITH_LENGTH = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
_WITHOUT_LENGTH = "{desc}: {n_fmt}{postfix}"


@contextmanager
def progress_bars(folder: Path, out: TextIO | None = None) -> Iterator[None]:
    """Show the downloads of a run until the block ends; does nothing where ``out`` is no terminal.

    Args:
        folder: where the downloading processes write their progress; it is made and removed here.
        out: default: standard error.
    """
    out = out or sys.stderr
    if not out.isatty():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    over = threading.Event()
    thread = threading.Thread(target=_show, args=(folder, out, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        shutil.rmtree(folder, ignore_errors=True)


def _show(folder: Path, out: TextIO, over: threading.Event) -> None:
    bars: dict[str, tqdm[NoReturn]] = {}
    while not over.wait(_REFRESH_S):
        found = read_progress(folder)
        for key in [key for key in bars if key not in found]:
            bars.pop(key).close()
        for key, progress in found.items():
            if key not in bars:
                bars[key] = _bar(progress, out)
            _update(bars[key], progress)
    for bar in bars.values():
        bar.close()


def _bar(progress: Progress, out: TextIO) -> tqdm[NoReturn]:
    from tqdm import tqdm  # Only where there is a terminal: every run from a timer starts without it.

    form = _WITH_LENGTH if progress.total else _WITHOUT_LENGTH
    return tqdm(
        total=progress.total, desc=progress.file, unit="B", unit_scale=True, dynamic_ncols=True, leave=False, file=out, bar_format=form
    )


def _update(bar: tqdm[NoReturn], progress: Progress) -> None:
    _, _, figures = str(progress).partition(": ")
    bar.n = progress.bytes
    # Rate and time left are the meter's: the bar itself began later, and knows nothing of what was there before.
    bar.set_postfix_str(", ".join(figures.split(", ")[1:]), refresh=False)
    bar.refresh()
