"""One record, typed by itself: the plain meaning that whole columns are held to.

In goes a record of texts as a reader gives it; out come the values of its columns, each read by the function of its type, and the
computed ones made of them. It is slow, and it is what ``DataTransformer.normalize_data`` gives; a sample of every part is compared
with it. Nothing is judged by rules here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.catalog.model import Column
from pipeline.transform.coerce import Refusal, arrow_type, coerce_text
from pipeline.transform.compute import compute_column


def typed_record(record: Mapping[str, str | None], columns: Mapping[str, Column]) -> dict[str, Any]:
    """Type one record.

    Args:
        record: column -> text as the reader gives it, or None.
        columns: the columns wanted, and those that they are computed of.

    Returns:
        Column -> typed value, or None, or a :class:`~pipeline.transform.coerce.Refusal` where the type cannot take the text and the
        column's policy is not to make it NULL.
    """
    typed: dict[str, Any] = {}
    for name, column in columns.items():
        if column.compute is None:
            typed[name] = _by_policy(coerce_text(record.get(name), column), column)
    for name, column in columns.items():
        if column.compute is not None:
            made = compute_column(column, {of: _array(typed[of], columns[of]) for of in column.compute.of})
            reason = next((reason for reason, mask in made.refusals.items() if mask[0]), None)
            typed[name] = _by_policy(Refusal(reason) if reason else made.values[0].as_py(), column)
    return {name: typed[name] for name in columns}


def _array(value: Any, column: Column) -> pa.Array:
    """A typed value as a column of one row; NULL where it is refused."""
    return pa.array([None if isinstance(value, Refusal) else value], arrow_type(column.type))


def _by_policy(value: Any, column: Column) -> Any:
    """A typed value or refusal as the column's ``on_error`` has it."""
    return None if isinstance(value, Refusal) and column.on_error == "null" else value
