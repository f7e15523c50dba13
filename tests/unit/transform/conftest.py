import itertools
from pathlib import Path

import pytest
from member_maker import ACCOUNTS, transform_file


@pytest.fixture
def transformed(tmp_path):
    """Write a member, transform it in the real way, read the folders back."""
    numbers = itertools.count()

    def run(content: bytes | Path, of=ACCOUNTS, **options):
        folder = tmp_path / f"run-{next(numbers)}"
        folder.mkdir()
        path = content
        if isinstance(content, bytes):
            path = folder / "roll.txt"
            path.write_bytes(content)
        return transform_file(path, folder / "out", of, **options)

    return run
