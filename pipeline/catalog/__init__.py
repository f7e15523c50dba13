"""The catalog: schema files read into frozen dataclasses, checked, with the recipes that identify their content."""

from pipeline.catalog.gate_model import Drift, Gate
from pipeline.catalog.load import load_catalog, load_source, shipped_schemas
from pipeline.catalog.model import (
    OWN_COLUMNS,
    Archive,
    Column,
    ColumnType,
    Example,
    Index,
    Layout,
    Limits,
    ProbeRule,
    Source,
    Table,
    VersionField,
)
from pipeline.catalog.profiles import PRODUCTION
from pipeline.catalog.recipe import ROW_HASH_VERSION, TRANSFORM_REVISION, release_recipe, table_recipe

__all__ = [
    "OWN_COLUMNS",
    "PRODUCTION",
    "ROW_HASH_VERSION",
    "TRANSFORM_REVISION",
    "Archive",
    "Column",
    "ColumnType",
    "Drift",
    "Example",
    "Gate",
    "Index",
    "Layout",
    "Limits",
    "ProbeRule",
    "Source",
    "Table",
    "VersionField",
    "load_catalog",
    "load_source",
    "release_recipe",
    "shipped_schemas",
    "table_recipe",
]
