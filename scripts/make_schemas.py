#!/usr/bin/env python3
"""Make the table files of HCAD, ``schemas/hcad/<table>.toml``, from its codebook and from what a person decided about it.

In go ``codebook/hcad-<date>.json`` (each table with its archive, its columns in file order and the publisher's texts), the layout
document of 2019 (which tells how far back the same columns reach) and ``codebook/hcad-review.toml``: the meaning of every column, the
keys, rules and texts that the codebook states wrongly or not at all, and an example a table. Out come the table files; the same input
gives the same bytes, and a test holds the files in the repository to it. Nothing is guessed: a table or column that nobody reviewed is
told, and so is one that the review or a file written by hand has and the codebook has not. Then nothing is written.

    python scripts/make_schemas.py                        write the files
    python scripts/make_schemas.py --check                write nothing; say what differs
    python scripts/make_schemas.py --codebook NEW.json    what is new, gone or changed in another codebook, against the one of the review
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REVIEW = HERE / "codebook" / "hcad-review.toml"
SCHEMAS = HERE.parent / "schemas" / "hcad"
#: The first tax year that this project takes; the layout of 2019 reaches further back where its columns are the same.
FIRST_YEAR, YEAR_2019, LAST_YEAR = 2021, 2019, 2099
COMMENT_WIDTH = 120
LAYOUT = """
[[layout]]
years = [{}, {}]
format = "delimited"
delimiter = "\\t"
encoding = "cp1252"
header = "detect\""""
#: Where the publisher's text of a column goes over into where its codes are listed, how it is written or who may see it.
_ASIDE = re.compile(
    r"\s*(?:[-;(]\s*)?(?:See Code Descriptions|See real_|Example See|\(For example\)|Or desc_|Format MM/|Display/Hide|Notes \d|_{5}).*"
)
_CODES = re.compile(r"desc_[rt]_\d\d_\w+")
#: Kinds whose text in a typed row is the text of the cell, trimmed.
_AS_WRITTEN = ("text", "integer", "bigint", "numeric")


class ReviewError(Exception):
    """The codebook and the review do not fit together; each line says where."""


@dataclass(frozen=True)
class Column:
    """A column of a table file in the making: the publisher's name, ours, the keys of its line, and what it means."""

    source: str
    name: str
    kind: str
    keys: str
    doc: str

    @property
    def type(self) -> str:
        """Its type without digits."""
        return re.search(r'type = "(\w+)', self.keys)[1]  # type: ignore[index]

    def line(self, width: int) -> str:
        """The column's line in the file."""
        source = f', source = "{self.source}"' if self.source != self.name else ""
        keys = re.sub(r'^(type = "[^"]+")', rf"\1{source}", self.keys)
        return f"{self.name:<{width}} = {{ {keys}, doc = {_text(self.doc)} }}"


class Codebook:
    """HCAD's codebook, the layout of 2019 and the review, held against each other.

    Args:
        review: the reviewed decisions.
        codebook: another codebook than the review's own.
    """

    def __init__(self, review: Path = REVIEW, codebook: Path | None = None) -> None:
        """Read all three."""
        self.review = tomllib.loads(review.read_text(encoding="utf-8"))
        stated = json.loads((codebook or review.parent / self.review["codebook"]).read_text(encoding="utf-8"))
        before = json.loads((review.parent / self.review["layout_2019"]).read_text(encoding="utf-8"))
        self.tables: dict[str, dict[str, Any]] = {table["table"]: table for table in stated}
        self._columns_2019 = {table["table"]: [column["name"].lower() for column in table["cols"]] for table in before}
        self.reviewed: dict[str, dict[str, Any]] = self.review["tables"]

    def problems(self) -> list[str]:
        """What is in the codebook and reviewed nowhere, and what is reviewed and not in the codebook."""
        by_hand = self.review["by_hand"]
        found = [f"new table {name}: nobody has reviewed it" for name in self.tables if name not in self.reviewed and name not in by_hand]
        found += [f"table {name} is gone from the codebook" for name in (*self.reviewed, *by_hand) if name not in self.tables]
        for name, reviewed in self.reviewed.items():
            found += self._column_problems(name, reviewed) if name in self.tables else []
        for name in by_hand:
            path = SCHEMAS / f"{name}.toml"
            columns = tomllib.loads(path.read_text(encoding="utf-8"))["columns"]
            ours = [keys.get("source", column) for column, keys in columns.items()]
            if name in self.tables and ours != (theirs := [column["name"] for column in self.tables[name]["cols"]]):
                differing = ", ".join(sorted(set(ours) ^ set(theirs))) or "their order"
                found.append(f"{path.name}, written by hand, has other columns than the codebook: {differing}")
        return found

    def _column_problems(self, name: str, reviewed: Mapping[str, Any]) -> Iterator[str]:
        there = [column["name"] for column in self.tables[name]["cols"]]
        if "kinds" in reviewed:
            sorted_in = [column for columns in reviewed["kinds"].values() for column in columns]
            yield from (f"new column {name}.{column}: nobody has reviewed it" for column in there if column not in sorted_in)
            yield from (f"column {name}.{column} is gone from the codebook" for column in sorted_in if column not in there)
            yield from (f"column {name}.{column} is of two kinds" for column in there if sorted_in.count(column) > 1)
            unknown = set(reviewed["kinds"]) - set(self.review["kinds"])
            yield from (f"{name}: no kind {kind!r}" for kind in sorted(unknown))
        yield from (f"{name}.{column}: a text for a column that is not there" for column in reviewed.get("docs", {}) if column not in there)
        if (cells := len(reviewed["example"].split(" | "))) != len(there):
            yield f"{name}: an example of {cells} cells for {len(there)} columns"

    def file(self, name: str) -> str:
        """The table file of a reviewed table."""
        return "".join(f"{block}\n" for block in self._blocks(name))

    def _blocks(self, name: str) -> Iterator[str]:
        reviewed, columns = self.reviewed[name], self.columns(name)
        yield self._head(name)
        yield self._table(name)
        yield LAYOUT.format(*self.years(name))
        width = max(len(column.name) for column in columns)
        yield "\n[columns]\n" + "\n".join(column.line(width) for column in columns)
        yield from (f"\n[[index]]\ncolumns = {_list([column.lower()])}" for column in reviewed.get("index", ()))
        yield from self._checks(name)
        yield from self._unpivot(reviewed)
        yield from _examples(reviewed, columns, reviewed.get("example_year", 2025))

    def _head(self, name: str) -> str:
        reviewed, title = self.reviewed[name], self.review["codebook_title"]
        as_in_2019 = ", and as in HCAD's layout of October 2019" if self._is_as_in_2019(name) else ""
        texts = [
            f"HCAD {name}.txt. Columns, order and meaning: {title}{as_in_2019}. {reviewed.get('why', '')}".strip(),
            "Made by scripts/make_schemas.py from the codebook and scripts/codebook/hcad-review.toml: change that, not this.",
        ]
        return "\n".join(f"# {line}" for text in texts for line in textwrap.wrap(text, COMMENT_WIDTH)) + "\n"

    def _table(self, name: str) -> str:
        reviewed = self.reviewed[name]
        archive = self.tables[name]["archive"].removesuffix(".zip")
        lines = ["[table]", f'name = "{name}"', f'archive = "{self.review["archives"].get(archive, archive)}"', f'member = "{name}.txt"']
        if "member_aliases" in reviewed:
            lines.append(f"member_aliases = {_list(reviewed['member_aliases'])}")
        if not reviewed.get("required", True):
            lines.append("required = false")
        if "years" in reviewed:
            lines.append(f"years = {reviewed['years']}")
        identity = "key" if "key" in reviewed else "parent"
        lines.append(f"{identity} = {_list(reviewed[identity])}")
        if "year_column" in reviewed:
            lines.append(f'year_column = "{reviewed["year_column"]}"')
        return "\n".join([*lines, f"doc = {_text(reviewed['doc'])}"])

    def columns(self, name: str) -> list[Column]:
        """The columns of a reviewed table, in file order."""
        reviewed = self.reviewed[name]
        identity = reviewed.get("key", reviewed.get("parent"))
        made = []
        for stated in self.tables[name]["cols"]:
            source = stated["name"]
            ours = reviewed.get("names", {}).get(source, source.lower())
            kind = next((kind for kind, columns in reviewed.get("kinds", {}).items() if source in columns), "")
            kind = kind or ("key_code" if ours in identity else "text")
            decided = self.review["kinds"][kind]
            doc = reviewed.get("docs", {}).get(source) or said(stated["desc"])
            if not doc:
                raise ReviewError(f"{name}.{source}: the codebook has no text for it, and the review has none")
            unit = decided.get("unit", "")
            made.append(Column(source, ours, kind, decided["keys"], f"{doc}, {unit}" if unit else doc))
        return made

    def years(self, name: str) -> tuple[int, int]:
        """The tax years for which the columns are known to be these."""
        reviewed = self.reviewed[name]
        return tuple(reviewed["years"]) if "years" in reviewed else (YEAR_2019 if self._is_as_in_2019(name) else FIRST_YEAR, LAST_YEAR)

    def _is_as_in_2019(self, name: str) -> bool:
        return self._columns_2019.get(name) == [column["name"].lower() for column in self.tables[name]["cols"]]

    def _checks(self, name: str) -> Iterator[str]:
        reviewed = self.reviewed[name]
        if "unique" in reviewed:
            yield _check("one_line_each", "unique", reviewed["unique"], {}, "Nothing says that it must hold; see the top of the file")
        if "fill" in reviewed:
            bound = {"min": reviewed["fill"]["min"]}
            yield _check("values", "fill", [c.lower() for c in reviewed["fill"]["columns"]], bound, "Nearly every line has them")
        if "parent_table" in reviewed:
            to = {"table": reviewed["parent_table"], "to": ["acct"], "min": 0.95}
            doc = "Accounts come and go within a year; nearly every line is of one that is there"
            yield _check("account", "reference", ["acct"], to, doc)

    def _unpivot(self, reviewed: Mapping[str, Any]) -> Iterator[str]:
        if "unpivot" not in reviewed:
            return
        wide = reviewed["unpivot"]
        members = ", ".join(f'{column} = "{member}"' for column, member in wide["members"].items())
        codes = textwrap.indent("\n".join(textwrap.wrap(", ".join(map(_text, wide["categories"])), COMMENT_WIDTH)), "    ")
        yield (f"\n[unpivot]\nyears = {wide['years']}\nmembers = {{ {members} }}\ncategory = \"{wide['category']}\"\n"
               f"categories = [\n{codes},\n]")  # fmt: skip


def said(text: str) -> str:
    """What a column means, out of the codebook's text: in small letters, with the table of its codes behind it."""
    codes = _CODES.search(text)
    plain = _ASIDE.sub("", text.replace("\N{EN DASH}", "-")).strip(" -;.")
    words = plain.split()
    small = [word if word.isupper() or number == 0 else word.lower() for number, word in enumerate(words)]
    return "; ".join([" ".join(small), *([codes[0]] if codes else [])])


def _check(name: str, kind: str, columns: list[str], more: Mapping[str, Any], doc: str) -> str:
    lines = [f'\n[[check]]\nname = "{name}"\nkind = "{kind}"\ncolumns = {_list(columns)}']
    lines += [f"{key} = {json.dumps(value)}" for key, value in more.items()]
    return "\n".join([*lines, f'severity = "warn"\ndoc = {_text(doc)}'])


def _examples(reviewed: Mapping[str, Any], columns: list[Column], year: int) -> Iterator[str]:
    """The reviewed record, which is taken, and the same one without the end of its first key column, which is refused."""
    cells = reviewed["example"].split(" | ")
    typed = {column.name: _typed(column, cell) for column, cell in zip(columns, cells, strict=True)}
    gives = ", ".join(f"{name} = {_text(shown)}" for name, shown in typed.items() if shown is not None)
    without = [name for name, shown in typed.items() if shown is None]
    origin = f"From real data: {reviewed['real']}." if "real" in reviewed else "Made; no real record of this file is at hand."
    taken = [f"\n# {origin}", "[[example]]", f"year = {year}", f"line = {_text(chr(9).join(cells))}", f"gives = {{ {gives} }}"]
    yield "\n".join([*taken, *([f"gives_null = {_list(without)}"] if without else [])])
    first = next(number for number, column in enumerate(columns) if "required = true" in column.keys)
    cells[first] = cells[first].rstrip()[:-1] if columns[first].kind in ("account", "business") else ""
    yield "\n".join(["\n[[example]]", f"year = {year}", f"line = {_text(chr(9).join(cells))}", f'refused = "{columns[first].name}"'])


def _typed(column: Column, cell: str) -> str | None:
    """What PostgreSQL shows of a cell, worked out apart from the program that reads it; None: it has no value."""
    text = cell.strip()
    if not text or f'"{text}"' in (re.search(r"nulls = \[(.*?)\]", column.keys) or ("", ""))[1]:
        return None
    if column.type == "date":
        return datetime.datetime.strptime(text, "%m/%d/%Y").date().isoformat()
    if column.type == "boolean":
        return {"Y": "true", "N": "false"}[text]
    if column.type not in _AS_WRITTEN:
        raise ReviewError(f"{column.name}: nothing says how a {column.type} is shown")
    return f"0{text}" if text.startswith(".") and column.type == "numeric" else text


def _text(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False)


def _list(texts: list[str]) -> str:
    return "[" + ", ".join(_text(text) for text in texts) + "]"


def changes(before: Codebook, after: Codebook) -> Iterator[str]:
    """What another codebook says otherwise of what both have: archive, stated key, order of columns, types and texts."""
    for name in before.tables.keys() & after.tables.keys():
        old, new = before.tables[name], after.tables[name]
        for key in ("archive", "primary_key_stated_by_hcad"):
            if old[key] != new[key]:
                yield f"{name}: {key} was {old[key]}, is {new[key]}"
        columns = {column["name"]: column for column in old["cols"]}
        both = [column["name"] for column in new["cols"] if column["name"] in columns]
        if both != [column for column in columns if column in both]:
            yield f"{name}: the columns stand in another order"
        for column in new["cols"]:
            for key in ("type", "size", "null", "desc"):
                if column["name"] in columns and columns[column["name"]][key] != column[key]:
                    yield f"{name}.{column['name']}: {key} was {columns[column['name']][key]!r}, is {column[key]!r}"


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or say what would change; 1: something is to be reviewed, or differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; say which files differ")
    parser.add_argument("--codebook", type=Path, help="another codebook, as JSON: say what it has new, gone or changed")
    asked = parser.parse_args(arguments)
    codebook = Codebook(codebook=asked.codebook)
    told = codebook.problems()
    if asked.codebook:
        told += sorted(changes(Codebook(), codebook))
    elif not told:
        for name in codebook.reviewed:
            path, content = SCHEMAS / f"{name}.toml", codebook.file(name)
            if asked.check and (not path.is_file() or path.read_text(encoding="utf-8") != content):
                told.append(f"{path.name} is not what the codebook and the review give")
            elif not asked.check:
                path.write_text(content, encoding="utf-8")
    print("\n".join(told) or f"{len(codebook.tables)} tables of the codebook, all reviewed")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
