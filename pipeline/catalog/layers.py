"""Tables that are made of map layers, and a source where these cannot be read: without them, and the archives of nothing else.

To the rest of the program such a table is one that the source does not declare: nothing of it is probed or fetched, what is live of
it stays, and no other table waits for it. ``Source.left_out`` says which they are, and why. With the extra installed
they are back: that makes a release of their own. A table that no tax year wants is not missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.catalog.model import Source, Table


def is_layer(table: Table) -> bool:
    """Whether a table's rows are the polygons of a map layer, which takes the extra ``gis`` to read."""
    return any(layout.format == "gis" for layout in table.layouts)


def without_layers(source: Source, missing: Sequence[str]) -> Source:
    """The source without its tables of map layers.

    Args:
        source: the source; one that has no such table is returned as it is.
        missing: the packages that are not installed; none: the source is returned as it is.
    """
    layers = {table.name for table in source.tables if is_layer(table)}
    if not layers or not missing:
        return source
    wanted = {table.name for year in source.tax_years for table in source.tables_for(year)}
    why = f"{', '.join(missing)} not installed: pip install 'hcad-pipeline[gis]'"
    tables = tuple(table for table in source.tables if table.name not in layers)
    needed = {table.archive for table in tables} | {field.archive for field in (source.version, *source.expects) if field}
    only = {table.archive for table in source.tables} - needed
    archives = tuple(archive for archive in source.archives if archive.name not in only)
    return replace(source, tables=tables, archives=archives, left_out=dict.fromkeys(sorted(layers & wanted), why))
