"""A county's member: any number of records in blocks, some of them spoilt, in the first release or any that follows.

In goes a :class:`County`: a table's shape, a number of rows, a seed, a format, rates; out come the member's bytes, block by block,
and the manifest of the outcome that a right import has. The same county gives the same bytes, and both formats hold the same
records. Each block is made by itself, so memory does not depend on the number of rows.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from county_account import Account, Mask
from county_faults import CONFLICT, DUPLICATE, ENCODING, KINDS, Form, Record, plain_text_columns
from county_shapes import ACCOUNT_STRIDE, Numbers, Shape, account_texts

from pipeline.catalog import load_catalog
from pipeline.catalog.model import Table

BLOCK_ROWS = 20_000
BAD_RATE = 0.005
LINE_END = "\r\n"
#: The earliest instant that a zip can carry: an archive made twice is the same file.
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
CONFLICTING_TEXT = "ANOTHER"
#: Streams of random numbers of one block, beside those of the releases (1, 2, ...).
_RECORDS, _MARKS, _SPOILS = 0, 1_000_001, 1_000_002


def even_rates(bad_rate: float = BAD_RATE) -> dict[str, float]:
    """The rate of each kind: the bad ones share the rate, and each harmless kind is as frequent as a bad one."""
    share = bad_rate / sum(not kind.is_harmless for kind in KINDS.values())
    return dict.fromkeys(KINDS, share)


@dataclass(frozen=True)
class County:
    """One member of a county's release.

    Attributes:
        shape: which table.
        rows: records of the first release, the bad ones included.
        seed: another one, another county.
        form: how records are written.
        year: the tax year.
        release: 0 the first one, N the Nth after it.
        rates: share of the records that each kind spoils.
        inserts, updates, deletes: share of the accounts that each release after the first brings, reviews and drops.
        header: where a delimited member has its header line.
    """

    shape: Shape
    rows: int
    seed: int = 0
    form: Form = "delimited"
    year: int = 2025
    release: int = 0
    rates: Mapping[str, float] = field(default_factory=even_rates)
    inserts: float = 0.01
    updates: float = 0.05
    deletes: float = 0.005
    header: Literal["first", "last", "none"] = "first"

    def __post_init__(self) -> None:
        """Refuse what cannot be made."""
        unknown = sorted(set(self.rates) - set(KINDS))
        if unknown:
            raise ValueError(f"no kind {', '.join(unknown)}; there are {', '.join(KINDS)}")
        shares = [*self.rates.values(), self.inserts, self.updates, self.deletes]
        if min(shares) < 0 or sum(self.rates.values()) > 1 or max(shares) > 1:
            raise ValueError("rates are shares from 0 to 1, and the kinds' sum is 1 at most")
        if self.rows < 1 or not 0 <= self.release < ACCOUNT_STRIDE:
            raise ValueError(f"{self.rows} rows, release {self.release}: at least 1, and 0 to {ACCOUNT_STRIDE - 1}")

    def table(self) -> Table:
        """The table as the shipped schema file declares it."""
        return load_catalog(environ={"SAMPLE_SERVER_URL": ""})[self.shape.source].table(self.shape.table)

    def header_line(self) -> bytes:
        """The names of the columns as the publisher writes them, with the line end; nothing where there is no header."""
        if self.form == "fixed_width" or self.header == "none":
            return b""
        table = self.table()
        return ("\t".join(table.column(field.name).source for field in self.shape.fields) + LINE_END).encode(ENCODING)

    def blocks(self, account: Account | None = None) -> Iterator[bytes]:
        """The member's bytes in blocks that end with a line; ``account`` is told what must become of them."""
        table, header = self.table(), self.header_line()
        if header and self.header == "first":
            yield header
        for number, first in enumerate(range(0, self.rows, BLOCK_ROWS)):
            content = _Block(self, table, number, min(BLOCK_ROWS, self.rows - first)).write(account)
            yield content
        if header and self.header == "last":
            yield header

    def write(self, path: Path) -> None:
        """Write the member."""
        with open(path, "wb") as out:
            out.writelines(self.blocks())

    def write_with_manifest(self, path: Path, *, is_zip: bool = False) -> dict[str, Any]:
        """Write the member, or the archive that holds it; returns the manifest."""
        account, digest, size = Account(self.shape, self.table()), hashlib.sha256(), 0
        with _opened(path, f"{self.shape.table}.txt", is_zip) as out:
            for block in self.blocks(account):
                out.write(block)
                digest.update(block)
                size += len(block)
        return {
            "county": {
                "rows": self.rows, "seed": self.seed, "format": self.form, "tax_year": self.year, "release": self.release,
                "record_width": self.shape.record_width if self.form == "fixed_width" else None,
            },
            "member": {"name": f"{self.shape.table}.txt", "bytes": size, "sha256": digest.hexdigest()},
            **account.manifest(),
        }  # fmt: skip


@contextmanager
def _opened(path: Path, member: str, is_zip: bool) -> Iterator[IO[bytes]]:
    """A file to write a member to, plain or inside a zip."""
    if not is_zip:
        with open(path, "wb") as out:
            yield out
        return
    named = zipfile.ZipInfo(member, ZIP_EPOCH)
    named.compress_type, named.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
    with zipfile.ZipFile(path, "w") as archive, archive.open(named, "w", force_zip64=True) as out:
        yield out


class _Block:
    """Some accounts with neighbouring numbers, through all releases up to the county's.

    The random numbers of a block depend on nothing but seed and block, those of a release on its number too: what happened in
    earlier releases is the same whichever release is made.
    """

    def __init__(self, county: County, table: Table, number: int, rows: int) -> None:
        self.county, self.table, self.number = county, table, number
        self._first = number * BLOCK_ROWS
        marks = self._random(_MARKS)
        limits = np.cumsum([county.rates.get(name, 0.0) for name in KINDS])
        #: Place of its kind in KINDS, or -1; the place of the account that a repeat repeats, or its own.
        self._kind = np.searchsorted(limits, marks.random(rows), side="right").astype(np.int64)
        self._kind[self._kind == len(KINDS)] = -1
        self._repeats = self._choose_repeated(marks)
        self._change = Counter[str]()

    def write(self, account: Account | None) -> bytes:
        """The block's lines."""
        numbers, texts = self._population()
        order = np.argsort(numbers, kind="stable")
        numbers = numbers[order]
        is_base = numbers % ACCOUNT_STRIDE == 0
        base = numbers // ACCOUNT_STRIDE - self._first
        kinds = np.where(is_base, self._kind[base], -1)
        # A repeat takes the texts of the account that it repeats, wherever that stands now.
        repeated = np.where(is_base, self._repeats[base], -1)
        source = np.where(repeated >= 0, np.searchsorted(numbers, (repeated + self._first) * ACCOUNT_STRIDE), np.arange(len(numbers)))
        taken = pa.array(order[source])
        texts = {name: values.take(taken) for name, values in texts.items()}
        names = np.array([*KINDS, ""])[kinds]
        self._set_conflicts(texts, names == CONFLICT, base)
        return self._spoil(texts, names, base, account)

    def _random(self, *stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.county.seed, self.number, *stream]))

    def _choose_repeated(self, draw: np.random.Generator) -> Numbers:
        """For each repeat a good account before it; where there is none the repeat is a good record itself."""
        repeats = np.full(len(self._kind), -1, dtype=np.int64)
        kinds = list(KINDS)
        good = np.flatnonzero(self._kind == -1)
        for place in np.flatnonzero(np.isin(self._kind, [kinds.index(DUPLICATE), kinds.index(CONFLICT)])).tolist():
            before = int(np.searchsorted(good, place))
            if before:
                repeats[place] = good[int(draw.integers(before))]
            else:
                self._kind[place] = -1
        return repeats

    def _population(self) -> tuple[Numbers, dict[str, pa.Array]]:
        """The accounts of the release, in no order: their numbers and texts."""
        county, rows = self.county, len(self._kind)
        numbers = (np.arange(rows, dtype=np.int64) + self._first) * ACCOUNT_STRIDE
        # Bad records and what they repeat stay as they are, so that a release's changes are changes of good rows.
        stays = self._kind >= 0
        stays[self._repeats[self._repeats >= 0]] = True
        texts = self._records(self._random(_RECORDS), numbers)
        for release in range(1, county.release + 1):
            draw = self._random(release)
            chance = np.where(stays, 1.0, draw.random(len(numbers)))
            gone = chance < county.deletes
            reviewed = ~gone & (chance < county.deletes + county.updates)
            self._review(texts, reviewed, draw, release)
            new = numbers[draw.random(len(numbers)) < county.inserts]
            new = new[new % ACCOUNT_STRIDE == 0] + release
            inserted = self._records(draw, new)
            left = pa.array(~gone)
            texts = {name: pa.concat_arrays([values.filter(left), inserted[name]]) for name, values in texts.items()}
            numbers = np.concatenate((numbers[~gone], new))
            stays = np.concatenate((stays[~gone], np.zeros(len(new), dtype=bool)))
            self._change = Counter(inserted=len(new), updated=int(reviewed.sum()), deleted=int(gone.sum()))
        return numbers, texts

    def _records(self, draw: np.random.Generator, numbers: Numbers) -> dict[str, pa.Array]:
        made = self.county.shape.whole(draw, len(numbers), self.county.year)
        return {self.table.key[0]: account_texts(numbers), **made}

    def _review(self, texts: dict[str, pa.Array], reviewed: Mask, draw: np.random.Generator, release: int) -> None:
        values = self.county.shape.reviewed(draw, int(reviewed.sum()), release)
        for name, new in values.items():
            texts[name] = pc.replace_with_mask(texts[name], pa.array(reviewed), new)

    def _set_conflicts(self, texts: dict[str, pa.Array], is_conflict: Mask, base: Numbers) -> None:
        """Another text in each, so that two of one account are not equal to each other."""
        name = plain_text_columns(self.county.shape, self.table, len(f"{CONFLICTING_TEXT} {BLOCK_ROWS}"))[0]
        others = pc.binary_join_element_wise(CONFLICTING_TEXT, pc.cast(pa.array(base), pa.string()), " ")
        texts[name] = pc.if_else(pa.array(is_conflict), others, texts[name])

    def _spoil(self, texts: dict[str, pa.Array], names: npt.NDArray[np.str_], base: Numbers, account: Account | None) -> bytes:
        """The lines, those of spoilt records in their place; the account is told."""
        places, content = self._lines(texts)
        is_row, pieces, at = np.ones(len(names), dtype=bool), [], 0
        changed: dict[str, dict[int, str]] = {}
        for place in np.flatnonzero([KINDS[name].spoil is not None if name else False for name in names]).tolist():
            row = {name: values[place].as_py() for name, values in texts.items()}
            spoil = KINDS[str(names[place])].spoil
            assert spoil is not None
            # Random numbers of its own: it is spoilt alike in every release and format.
            draw = self._random(_SPOILS, int(base[place]))
            outcome = spoil(Record(self.county.shape, self.table, self.county.form, row, draw))
            pieces.append(content[at : places[place]])
            pieces.extend(line + LINE_END.encode() for line in outcome.lines)
            at = places[place + 1]
            is_row[place] = not (outcome.refused or outcome.is_blank)
            if outcome.changed:
                changed.setdefault(outcome.changed[0], {})[place] = outcome.changed[1]
            if account is not None:
                account.refuse(outcome)
                account.nulled.update([outcome.nulled] if outcome.nulled else [])
        pieces.append(content[at:])
        if account is not None:
            account.kinds.update(str(name) for name in names if name)
            account.changes.update(self._change)
            is_duplicate = names == DUPLICATE
            account.add(_with_changes(texts, changed), is_row & ~is_duplicate, is_duplicate, names == CONFLICT)
        return b"".join(pieces)

    def _lines(self, texts: Mapping[str, pa.Array]) -> tuple[list[int], memoryview]:
        """Where each line begins, and where the last one ends; and all of them."""
        cells = []
        for where in self.county.shape.fields:
            values = texts[where.name]
            if self.county.form == "delimited":
                if where.empty:
                    values = pc.if_else(pc.equal(values, ""), where.empty, values)
                values = pc.ascii_rpad(values, where.pad) if where.pad else values
            else:
                values = (pc.ascii_lpad if where.align == "right" else pc.ascii_rpad)(values, where.width)
            cells.append(values)
        by = "\t" if self.county.form == "delimited" else ""
        lines = pc.binary_join_element_wise(pc.binary_join_element_wise(*cells, by), "", LINE_END)
        _, offsets, content = lines.buffers()
        return np.frombuffer(offsets, np.int32, len(lines) + 1, lines.offset * 4).tolist(), memoryview(content)


def _with_changes(texts: Mapping[str, pa.Array], changed: Mapping[str, Mapping[int, str]]) -> dict[str, pa.Array]:
    """The texts as they must be read."""
    made = dict(texts)
    for name, by_place in changed.items():
        mask = np.zeros(len(made[name]), dtype=bool)
        mask[list(by_place)] = True
        news = pa.array([by_place[place] for place in sorted(by_place)], pa.string())
        made[name] = pc.replace_with_mask(made[name], pa.array(mask), news)
    return made
