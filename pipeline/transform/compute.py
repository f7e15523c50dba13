"""Computed columns: made from typed columns of the same row by one of a few functions, for whole columns at once.

No expression of a schema file is evaluated: a file names a function and its columns. A column without a value counts as nothing,
and where none of them has a value there is none: no building is not a building without bathrooms. Sums are exact, in integers;
a sum that the column's type cannot hold is refused with the reason that a text with that number would have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog.model import Column, ColumnType
from pipeline.errors import CatalogError
from pipeline.transform.coerced import Coerced, arrow_type
from pipeline.transform.scaled import Scaled


def compute_column(column: Column, rows: Mapping[str, pa.Array]) -> Coerced:
    """Make a computed column.

    Args:
        column: its declaration; ``compute`` is set.
        rows: the typed columns that it is made from, among others, all of one length.

    Returns:
        Values of ``arrow_type(column.type)`` and the refusals.

    Raises:
        CatalogError: the function does not exist.

    >>> column = Column("rooms", ColumnType("integer"), "rooms", compute=Computed("sum", ("a", "b")))
    >>> compute_column(column, {"a": pa.array([1, None, None]), "b": pa.array([2, 0, None])}).values.to_pylist()
    [3, 0, None]
    """
    if column.compute is None or column.compute.function not in _FUNCTIONS:
        seen = f"compute {column.compute.function!r}" if column.compute else "a column that is read"
        raise CatalogError(f"{column.name}: {seen}", f"one of {', '.join(_FUNCTIONS)}", "correct the schema file")
    return _FUNCTIONS[column.compute.function]([rows[name] for name in column.compute.of], column.type)


def join(parts: Sequence[pa.Array], column_type: ColumnType) -> Coerced:
    """Texts and whole numbers with one blank between.

    >>> join([pa.array(["BLK", None, None]), pa.array([7, 7, None])], ColumnType("text")).values.to_pylist()
    ['BLK 7', '7', None]
    """
    texts = [pc.cast(part, pa.string()) for part in parts]
    is_there = _any_valid(texts)
    # Arrow 26 leaves a row out of the result, and makes it shorter, where every part is NULL: such a row gets an empty part.
    nothing = pc.if_else(is_there, pa.scalar(None, pa.string()), "")
    joined = pc.binary_join_element_wise(nothing, *texts, " ", null_handling="skip")
    values = pc.if_else(is_there, joined, pa.scalar(None, pa.string()))
    return Coerced(values, canonical=values)


def situs_address(parts: Sequence[pa.Array], column_type: ColumnType) -> Coerced:
    """As ``join``; the first column is the street number, which is left out where it is 0.

    >>> numbers, streets, suffixes = pa.array(["901", "0", None]), pa.array(["COMMERCE", "COMMERCE", None]), pa.array(["ST", "ST", None])
    >>> situs_address([numbers, streets, suffixes], ColumnType("text")).values.to_pylist()
    ['901 COMMERCE ST', 'COMMERCE ST', None]
    """
    number = pc.cast(parts[0], pa.string())
    is_zero = pc.equal(pc.binary_length(pc.ascii_trim(number, "0")), 0)
    return join([pc.if_else(is_zero, pa.scalar(None, pa.string()), number), *parts[1:]], column_type)


def total(parts: Sequence[pa.Array], column_type: ColumnType) -> Coerced:
    """The sum of numbers, exactly.

    >>> acres = [pa.array([Decimal("0.10"), None]), pa.array([Decimal("0.205"), None])]
    >>> total(acres, ColumnType("numeric", 9, 3)).values.to_pylist()
    [Decimal('0.305'), None]
    """
    return _weighted(parts, [1] * len(parts), 0, column_type)


def bathrooms(parts: Sequence[pa.Array], column_type: ColumnType) -> Coerced:
    """Full bathrooms, and half ones at a half each.

    >>> bathrooms([pa.array([2, 0, None]), pa.array([1, None, None])], ColumnType("numeric", 4, 2)).values.to_pylist()
    [Decimal('2.50'), Decimal('0.00'), None]
    """
    return _weighted(parts, [10, 5], 1, column_type)


def coalesce(parts: Sequence[pa.Array], column_type: ColumnType) -> Coerced:
    """The first value that there is.

    >>> coalesce([pa.array([None, "B", None]), pa.array(["A", "C", None])], ColumnType("text")).values.to_pylist()
    ['A', 'B', None]
    """
    target = arrow_type(column_type)
    if all(part.type == target for part in parts):
        values = pc.coalesce(*parts)
        return Coerced(values, canonical=values if column_type.kind == "text" else None)
    numbers = _of_one_scale(parts)
    first = numbers[0]
    for other in numbers[1:]:
        first = Scaled(np.where(first.is_there, first.units, other.units), first.is_there | other.is_there, first.scale)
    return first.into(column_type)


def _weighted(parts: Sequence[pa.Array], weights: Sequence[int], decimals: int, column_type: ColumnType) -> Coerced:
    """The sum of numbers, each times its weight; weights are in units of a decimal place."""
    numbers = _of_one_scale(parts)
    units = sum((number.units * weight for number, weight in zip(numbers, weights, strict=True)), np.int64(0))
    is_there = np.logical_or.reduce([number.is_there for number in numbers])
    return Scaled(np.asarray(units), is_there, numbers[0].scale + decimals).into(column_type)


def _of_one_scale(parts: Sequence[pa.Array]) -> list[Scaled]:
    numbers = [Scaled.of(part) for part in parts]
    scale = max(number.scale for number in numbers)
    return [number.at(scale) for number in numbers]


def _any_valid(parts: Sequence[pa.Array]) -> pa.Array:
    """Where one column at least has a value."""
    is_valid = parts[0].is_valid()
    for part in parts[1:]:
        is_valid = pc.or_(is_valid, part.is_valid())
    return is_valid


#: ``compute`` function -> what makes the column.
_FUNCTIONS: Final[Mapping[str, Callable[[Sequence[pa.Array], ColumnType], Coerced]]] = {
    "join": join,
    "situs_address": situs_address,
    "sum": total,
    "bathrooms": bathrooms,
    "coalesce": coalesce,
}
