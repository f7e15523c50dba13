"""Rows of a part that PostgreSQL itself refuses: found by halving, put into quarantine, and the others staged without them.

There should be few after the transform: a key too long for an index is one, and a constraint that somebody put on staging makes some. A
refusal rolls back to a savepoint, not the part; then halves of the part are tried until each refused row stands alone. Every row
is staged or quarantined (rule ``*:database``, with the server's words), and counted as such in the part's checkpoint. A part of
which more than :data:`MOST_REFUSED` rows are refused fails as a whole: then it is not the rows that are wrong.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.disclosure import VALUE_IN_MESSAGE
from pipeline.errors import PartRefused
from pipeline.handoff import RawLine

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

#: The rule under which such rows are quarantined: the line as a whole.
RULE = "*:database"
MOST_REFUSED = 100
#: SQLSTATE classes of a value that cannot be stored, and of a constraint that it breaks.
CLASSES = ("22", "23")

#: Stages the rows of a Parquet file in the caller's transaction, and returns how many there were.
Stage = Callable[[Path], int]
#: Gives lines of the member, by number.
RawLines = Callable[[list[int]], Mapping[int, RawLine]]


@dataclass(frozen=True)
class RefusedRow:
    """A row that PostgreSQL refused: its line in the member, and the server's words."""

    line: int
    message: str


def is_of_a_row(error: psycopg2.Error) -> bool:
    """Whether an error is about a row's values, and not about the link, the server or the statement."""
    return (error.pgcode or "")[:2] in CLASSES


def words_of(error: psycopg2.Error, *, with_values: bool) -> str:
    """The server's sentence with its SQLSTATE; without values it may stand in a log: a value may name a person."""
    sentence = error.diag.message_primary or type(error).__name__
    return f"{sentence if with_values else VALUE_IN_MESSAGE.sub('(a value)', sentence)} (SQLSTATE {error.pgcode})"


def stage_accepted(cursor: Cursor, parquet: Path, stage: Stage, *, may_refuse: bool) -> tuple[int, list[RefusedRow]]:
    """Stage the rows of a part that PostgreSQL accepts.

    Args:
        cursor: in the transaction that commits the part.
        parquet: the part's rows, with their ``line``.
        stage: stages the rows of such a file; it is called more often when one is refused, and undone by a savepoint.
        may_refuse: whether refused rows can be quarantined; if not, the first one stops the part.

    Returns:
        The rows staged, and the refused ones in the order of the member.

    Raises:
        PartRefused: more than :data:`MOST_REFUSED` rows are refused, or one is and may not be.
        psycopg2.Error: of another kind; or of this one when each row by itself is accepted, and not all of them together.
    """
    staged = _attempt(cursor, stage, parquet)
    if isinstance(staged, int):
        return staged, []
    if not may_refuse:
        raise PartRefused(
            f"PostgreSQL refuses a row of {parquet.parent}: {words_of(staged, with_values=False)}",
            "rows that the staging tables take",
            "hand stage_part the member's lines (raw_lines), and such rows go to quarantine",
        ) from staged
    with tempfile.TemporaryDirectory(prefix="hcad-pipeline-") as folder:
        search = _Search(cursor, stage, Path(folder))
        search.halve(parquet)
        if not search.refused:
            raise staged
        accepted = Path(folder) / "accepted.parquet"
        lines = frozenset(row.line for row in search.refused)
        _write(accepted, parquet, _Wanted(without=lines))
        return stage(accepted), search.refused


@dataclass(frozen=True)
class _Wanted:
    """Rows of a file: those at some places, or at all, but those of some lines."""

    places: range | None = None
    without: frozenset[int] = frozenset()

    def has(self, place: int, line: int) -> bool:
        """Whether the row at this place, of this line, is one of them."""
        return (self.places is None or place in self.places) and line not in self.without


class _Search:
    """Looks for refused rows depth first, so that at most one half of each size lies on the disk."""

    def __init__(self, cursor: Cursor, stage: Stage, folder: Path) -> None:
        self._cursor, self._stage, self._folder = cursor, stage, folder
        self.refused: list[RefusedRow] = []

    def halve(self, parquet: Path, depth: int = 0) -> None:
        """Try both halves of rows of which at least one was refused."""
        rows = pq.ParquetFile(parquet).metadata.num_rows
        middle = rows // 2
        for first, end in ((0, middle), (middle, rows)):
            if first == end:
                continue
            half = self._folder / f"{depth}.parquet"
            _write(half, parquet, _Wanted(range(first, end)))
            error = _attempt(self._cursor, self._stage, half, is_trial=True)
            if isinstance(error, int):
                continue
            if end - first > 1:
                self.halve(half, depth + 1)
                continue
            (line,) = pq.read_table(half, columns=["line"]).column("line").to_pylist()
            self._refuse(RefusedRow(line, words_of(error, with_values=True)), error)

    def _refuse(self, row: RefusedRow, error: psycopg2.Error) -> None:
        if len(self.refused) == MOST_REFUSED:
            raise PartRefused(
                f"PostgreSQL refuses more than {MOST_REFUSED} rows of a part, the first of them line {self.refused[0].line}; "
                f"of line {row.line} it says: {words_of(error, with_values=False)}",
                "rows that the staging tables take",
                "see that the database's encoding is UTF8 and that nothing of your own is on etl_staging, then run again",
            ) from error
        self.refused.append(row)


def _attempt(cursor: Cursor, stage: Stage, parquet: Path, *, is_trial: bool = False) -> int | psycopg2.Error:
    """Stage these rows; a refusal of a row is returned, and leaves nothing. A trial leaves nothing either way."""
    cursor.execute("savepoint rows_of_part")
    try:
        staged = stage(parquet)
    except psycopg2.Error as error:
        if not is_of_a_row(error):
            raise
        cursor.execute("rollback to savepoint rows_of_part; release savepoint rows_of_part")
        return error
    cursor.execute(f"{'rollback to savepoint rows_of_part; ' if is_trial else ''}release savepoint rows_of_part")
    return staged


def _write(to: Path, parquet: Path, wanted: _Wanted) -> None:
    """Write some of a file's rows."""
    file = pq.ParquetFile(parquet)
    place = 0
    with pq.ParquetWriter(to, file.schema_arrow, compression="lz4") as writer:
        for batch in file.iter_batches(batch_size=10_000):
            lines = batch.column("line").to_pylist()
            rows = [number for number, line in enumerate(lines) if wanted.has(place + number, line)]
            place += len(lines)
            if rows:
                writer.write_batch(batch.take(pa.array(rows)))
