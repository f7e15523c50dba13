"""A schema file read, checked against its meta-schema, and able to say where a key stands.

A file over 1 MiB, one that is not UTF-8 or not TOML, an unknown key, a value of the wrong type: each is a
``CatalogError`` that names the file, the line, the key, what stands there and what may. The file is never written, and
nothing in it is run. Line numbers come from a plain scan of the text, because the TOML reader keeps none; where a key
stands inside an inline table the line is that of the table.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from cerberus import errors as cerberus_errors

from pipeline.catalog.meta_schema import TABLE_FILE, MetaValidator, rules_at, table_validator
from pipeline.errors import CatalogError

MAX_FILE_BYTES = 1 << 20
#: So many problems are told at once; the rest is counted.
MAX_TOLD = 5

KeyPath = tuple[str | int, ...]

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]#]+?)\s*\]")
_ASSIGNMENT = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_TYPES = {"string": "text", "integer": "a whole number", "decimal": "a number", "boolean": "true or false", "list": "a list",
          "dict": "a table", "date": "a date"}  # fmt: skip


@dataclass(frozen=True)
class TomlFile:
    """A TOML file: its path, its parsed content, and the line (from 1) on which each key stands."""

    path: Path
    document: Mapping[str, Any]
    lines: Mapping[KeyPath, int]

    def line(self, keys: KeyPath) -> int | None:
        """The line of a key, or of the nearest table around it; None when neither was found."""
        while keys:
            if keys in self.lines:
                return self.lines[keys]
            keys = keys[:-1]
        return None

    def where(self, keys: KeyPath) -> str:
        """``file:line: key.path``, for messages."""
        line = self.line(keys)
        place = f"{self.path}:{line}" if line else str(self.path)
        return f"{place}: {_dotted(keys)}" if keys else place

    def error(self, keys: KeyPath, seen: str, expected: str, todo: str = "mend the file") -> CatalogError:
        """The error about one key; the caller raises it."""
        return CatalogError(f"{self.where(keys)}: {seen}", expected, todo)


def read_toml(path: Path, meta_schema: Mapping[str, Any]) -> TomlFile:
    """Read a schema file and hold it against a meta-schema.

    Args:
        path: a TOML file of at most 1 MiB.
        meta_schema: ``SOURCE_FILE`` or ``TABLE_FILE``.

    Raises:
        CatalogError: the file cannot be read, is too large, is not TOML, or says what no schema file says.
    """
    text = _read_text(path)
    try:
        document = tomllib.loads(text, parse_float=_finite)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise CatalogError(f"{path} is not TOML: {error}", "TOML 1.0, see schemas/README.md", "mend the file") from error
    file = TomlFile(path, document, _lines_of_keys(text))
    validator = table_validator() if meta_schema is TABLE_FILE else MetaValidator(meta_schema, allow_unknown=False)
    if not validator.validate(document, normalize=False):
        raise _refusal(file, meta_schema, list(_leaves(validator._errors)))
    return file


def closest(name: str, names: Iterable[str]) -> str:
    """`` (did you mean x?)`` when one of the names is near, else nothing."""
    near = difflib.get_close_matches(name, sorted(names), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _read_text(path: Path) -> str:
    """The file's text, never more of it than the limit."""
    try:
        with open(path, "rb") as source:
            content = source.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CatalogError(f"{path} cannot be read ({error.strerror})", "a readable schema file", "check the path") from error
    if len(content) > MAX_FILE_BYTES:
        raise CatalogError(
            f"{path} is larger than {MAX_FILE_BYTES:,} bytes", "a schema file of at most 1 MiB", "see whether it is one"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CatalogError(f"{path} is not UTF-8 at byte {error.start}", "UTF-8 text", "save it as UTF-8") from error


def _finite(text: str) -> Decimal:
    """A TOML fraction, exactly; ``inf`` and ``nan`` are no bound of anything."""
    number = Decimal(text)
    if not number.is_finite():
        raise tomllib.TOMLDecodeError(f"{text} is not a number that a rule can use")
    return number


def _lines_of_keys(text: str) -> dict[KeyPath, int]:
    """Where each table header and each key at the start of a line stands."""
    lines: dict[KeyPath, int] = {}
    items: Counter[tuple[str, ...]] = Counter()
    inside: KeyPath = ()
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _HEADER.match(line):
            keys = _split(header[2])
            if header[1] == "[[":
                items[keys] += 1
            inside = _indexed(keys, items)
            lines.setdefault(inside, number)
        elif assignment := _ASSIGNMENT.match(line):
            lines.setdefault((*inside, *_split(assignment[1])), number)
    return lines


def _split(dotted: str) -> tuple[str, ...]:
    """The parts of a dotted key, without quotes."""
    return tuple(key.strip("\"'") for key in _KEY.findall(dotted))


def _indexed(keys: tuple[str, ...], items: Counter[tuple[str, ...]]) -> KeyPath:
    """A header's path with the number of the array item that it stands in: ``layout.positions`` -> ``layout 0 positions``."""
    path: list[str | int] = []
    for depth, key in enumerate(keys, start=1):
        path.append(key)
        if items[keys[:depth]]:
            path.append(items[keys[:depth]] - 1)
    return tuple(path)


def _dotted(keys: KeyPath) -> str:
    """``columns.acct.type``, ``layout[1].years``: items of a list counted from 1, as a reader counts them."""
    return "".join(f"[{key + 1}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")


def _leaves(found: Iterable[Any]) -> Iterable[Any]:
    """Cerberus' single errors, out of the groups that it puts them in."""
    for error in found:
        if error.is_group_error:
            yield from _leaves(error.child_errors)
        else:
            yield error


def _refusal(file: TomlFile, meta_schema: Mapping[str, Any], found: list[Any]) -> CatalogError:
    """One error that tells the first problems, each with its place."""
    found.sort(key=lambda error: file.line(tuple(error.document_path)) or 0)
    told = [_explain(meta_schema, error) for error in found[:MAX_TOLD]]
    more = f"; and {len(found) - MAX_TOLD} more" if len(found) > MAX_TOLD else ""
    seen = "; ".join(f"{file.where(keys)}: {what}" for keys, what, _ in told) + more
    return CatalogError(seen, "; ".join(dict.fromkeys(may for _, _, may in told)), "mend the file, see schemas/README.md")


def _explain(meta_schema: Mapping[str, Any], error: Any) -> tuple[KeyPath, str, str]:
    """Key path, what stands there, what may."""
    keys: KeyPath = tuple(error.document_path)
    name = str(keys[-1])
    if error.code == cerberus_errors.UNKNOWN_FIELD.code:
        may = list(rules_at(meta_schema, keys[:-1]))
        return keys, f"unknown key{closest(name, may)}", f"one of the keys {', '.join(may)}"
    if error.code == cerberus_errors.REQUIRED_FIELD.code:
        return keys, "this key is missing", f"a value for {name!r}"
    if "keysrules" in error.schema_path:
        return keys, f"the name {name!r} may not stand here", f"a name for which holds: {error.rule} {error.constraint}"
    return keys, f"{_shown(error.value)} stands there", f"{_dotted(keys)}: {_wanted(error)}"


def _shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    text = repr(value) if not isinstance(value, Decimal) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _wanted(error: Any) -> str:
    """What a rule of the meta-schema asks for, in words."""
    constraint = error.constraint
    if error.rule == "type":
        kinds = [constraint] if isinstance(constraint, str) else constraint
        return " or ".join(_TYPES[kind] for kind in kinds)
    if error.rule == "allowed":
        return f"one of {', '.join(constraint)}{closest(str(error.value), constraint)}"
    words = {"min": "at least", "max": "at most", "minlength": "length at least", "maxlength": "length at most",
             "regex": "text that matches", "forbidden": "none of"}  # fmt: skip
    return f"{words.get(error.rule, error.rule)} {constraint}"
