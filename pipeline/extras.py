"""Which of the program's optional dependencies are installed, found out without importing them."""

from __future__ import annotations

import importlib.util
from typing import Final

#: The extra ``gis``: what reads a map layer's files, its polygons, and coordinate systems.
GIS: Final = ("pyogrio", "pyproj", "shapely")


def missing(packages: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the packages that are not installed."""
    return tuple(name for name in packages if importlib.util.find_spec(name) is None)
