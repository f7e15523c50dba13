"""Tables that are made of map layers, and a source where these cannot be read.

There the archives that they come in count as not offered: nothing of them is asked for or fetched, what is live of their tables is carried
over, and no other table waits for them. ``Source.left_out`` says which archives, and why. With the extra installed they are offered
again, which makes a release of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.catalog.model import Source, Table


def is_layer(table: Table) -> bool:
    """Whether a table's rows are the polygons of a map layer, which takes the extra ``gis`` to read."""
    return any(layout.format == "gis" for layout in table.layouts)


def without_layers(source: Source, missing: Sequence[str]) -> Source:
    """The source without the archives of map layers.

    Args:
        source: the source; one of which no tax year wants such a table is returned as it is.
        missing: the packages that are not installed; none: the source is returned as it is.
    """
    wanted = {table.name: table for year in source.tax_years for table in source.tables_for(year) if is_layer(table)}
    if not missing:
        return source
    why = f"needs {', '.join(missing)}, not installed here: pip install 'hcad-pipeline[gis]'"
    return replace(source, left_out={table.archive: f"{name} {why}" for name, table in sorted(wanted.items())})
