from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.catalog.model import Limits
from pipeline.extract import ExtractManager


@pytest.fixture
def make_manager() -> Callable[..., ExtractManager]:
    def make(
        *, max_members: int = 100, max_member_bytes: int = 1 << 30, max_ratio: float = 300.0, max_bytes: int = 1 << 40, **settings: object
    ) -> ExtractManager:
        return ExtractManager(limits=Limits(max_members, max_member_bytes, max_ratio, max_bytes), **settings)  # type: ignore[arg-type]

    return make


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the machine has one: for thousands of extractions of which nothing need outlive a power cut."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="hcad-pipeline-test-") as folder:
        yield Path(folder)


@pytest.fixture
def manager(make_manager: Callable[..., ExtractManager]) -> ExtractManager:
    return make_manager(part_bytes=1000)
