"""The files of map layers in an archive: which of its entries they are, and where each is written.

A layer is a shapefile (``.shp`` with ``.shx``, ``.dbf`` and ``.prj`` beside it) or lies in a File Geodatabase, a folder of ``.gdbtable``
files. Districts name and nest them as they like, from year to year in another way; so entries are sorted by kind and by the
folder they share, and written under names of our own: nothing that an archive says reaches the reader as a path. An entry twice, or a
shapefile whose first bytes are another file's, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from pipeline.errors import ArchiveError, MemberError

_SHAPEFILE: Final = ("shp", "shx", "dbf", "prj", "cpg")
#: Without these there is nothing to read, or nobody knows whose it is; without the projection it is read, and refused as what it is.
_NEEDED: Final = ("shp", "shx", "dbf")
_GEODATABASE: Final = re.compile(r"a[0-9a-f]{8}\.(gdbtable|gdbtablx|gdbindexes)|gdb|timestamps")
#: The table of tables, which every geodatabase has.
_CATALOG: Final = "a00000001.gdbtable"
_SHP_MAGIC: Final = b"\x00\x00\x27\x0a"


@dataclass(frozen=True)
class Dataset:
    """A shapefile or a geodatabase on the disk: its ``path``, its name in the archive, and why it cannot be read (empty: it can)."""

    path: Path
    shown: str
    broken: str = ""

    @property
    def stem(self) -> str:
        """The name of a shapefile's one layer: the file's, without folder and suffix."""
        return PurePosixPath(self.shown).stem


class LayerFiles:
    """Sorts an archive's entries, as they come, into files of layers and others.

    Args:
        archive: the archive's name, for messages.
    """

    def __init__(self, archive: str) -> None:
        self._archive = archive
        self._taken: dict[str, str] = {}
        self._places: dict[tuple[str, str], str] = {}
        self.names: list[str] = []

    def file_for(self, name: str) -> str | None:
        """Note an entry and return the file to write it to, below the folder of layers; None: it is no file of one.

        Raises:
            MemberError: another entry is the same file of the same layer.
        """
        self.names.append(name)
        path = PurePosixPath(name)
        folder, base, suffix = path.parent.as_posix(), path.name.casefold(), path.suffix[1:].casefold()
        if _GEODATABASE.fullmatch(base):
            file = f"{self._place(folder, '')}.gdb/{base}"
        elif suffix in _SHAPEFILE:
            file = f"{self._place(folder, path.stem.casefold())}/layer.{suffix}"
        else:
            return None
        if file in self._taken:
            raise MemberError(
                f"{self._archive}: {self._taken[file]} and {name} are one file of one layer", "each once", "ask the publisher"
            )
        self._taken[file] = name
        return file

    def check(self, hidden: ArchiveError | None = None) -> None:
        """Raise what keeps an inner archive closed: the layer may lie in it."""
        if hidden is not None:
            raise hidden

    def datasets(self, folder: Path) -> Iterator[Dataset]:
        """Yield the shapefiles and geodatabases that were written below ``folder``, in the archive's order."""
        for (where, stem), place in self._places.items():
            shown = PurePosixPath(where)
            if not stem:
                if f"{place}.gdb/{_CATALOG}" in self._taken:
                    yield Dataset(folder / f"{place}.gdb", shown.as_posix() if where != "." else self._archive)
                continue
            shown /= PurePosixPath(next(name for file, name in self._taken.items() if file.startswith(f"{place}/"))).stem + ".shp"
            lacking = [suffix for suffix in _NEEDED if f"{place}/layer.{suffix}" not in self._taken]
            path = folder / place / "layer.shp"
            broken = f"without .{', .'.join(lacking)}" if lacking else "" if _is_shapefile(path) else "that is no shapefile"
            yield Dataset(path, shown.as_posix(), broken)

    def _place(self, folder: str, stem: str) -> str:
        return self._places.setdefault((folder, stem), str(len(self._places)))


def _is_shapefile(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(_SHP_MAGIC)) == _SHP_MAGIC
