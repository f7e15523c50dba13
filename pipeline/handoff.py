"""What one stage hands to the next: small frozen dataclasses, and JSON files that hold them.

A stage imports no other stage; it takes a path, one of these, and a callback for events. Every class here reads back
equal from its own JSON. The files are written with :func:`write_json`, which makes the bytes durable before the name.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TypeVar

_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

#: Called by a stage with an event's name and its figures; the observe package turns them into log lines and ledger rows.
OnEvent = Callable[[str, Mapping[str, Any]], None]


def ignore(event: str, figures: Mapping[str, Any]) -> None:
    """Take an event and do nothing: the default of every stage."""


@dataclass(frozen=True)
class Receipt:
    """What a download brought: the archive's bytes and the validators they came with.

    ``file`` is the archive's name in the receipt's own folder, ``bytes`` its length, ``fingerprint`` the identity that
    the validators give (see ``pipeline.download.fingerprint``). ``requests_made`` counts redirects and what the server
    refused; ``attempts`` does not count redirects. ``resumed_bytes`` were there from attempts that broke off, and not sent again.
    """

    url: str
    file: str
    sha256: str
    bytes: int
    fingerprint: str
    etag: str | None
    last_modified: str | None
    requests_made: int
    fetched_at: str
    attempts: int = 1
    resumed_bytes: int = 0

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read a receipt back; TypeError when it is none."""
        receipt = cls(**document)
        texts = (receipt.url, receipt.file, receipt.sha256, receipt.fingerprint, receipt.fetched_at)
        if not (all(isinstance(text, str) for text in texts) and isinstance(receipt.bytes, int)):
            raise TypeError("a receipt with a value of another kind")
        return receipt


def receipt_path(archive: Path) -> Path:
    """Where an archive's receipt lies: beside it."""
    return archive.with_name(f"{archive.name}.receipt.json")


@dataclass(frozen=True)
class Part:
    """A byte range ``[start, end)`` of a member, cut after a line end; ``first_line`` counts from 1 over the member."""

    number: int
    start: int
    end: int
    first_line: int
    lines: int


@dataclass(frozen=True)
class Member:
    """A file out of an archive, as the extract stage measured it.

    ``name`` is the name that it is wanted by (in the archive it may be written in another case, or lie in a sub-folder) and
    ``file`` its name in the manifest's folder. ``first_line`` and ``last_line``
    are the lines without their ends, decoded as latin-1 (one character a byte) and cut at 65,536 bytes. ``widths`` counts
    lines by their length in bytes without the line end, for the 32 commonest lengths; ``other_widths`` counts the rest.
    ``crlf``, ``lf`` count the line ends; ``unterminated`` says that the last line has none. A last line without an end
    counts as a line; ``lines`` is 0 for an empty member.
    """

    name: str
    file: str
    bytes: int
    sha256: str
    lines: int
    first_line: str
    last_line: str
    crlf: int
    lf: int
    unterminated: bool
    widths: Mapping[int, int]
    other_widths: int
    parts: tuple[Part, ...]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read a member back."""
        fields = dict(document)
        fields["widths"] = {int(width): count for width, count in document["widths"].items()}
        fields["parts"] = tuple(Part(**part) for part in document["parts"])
        return cls(**fields)


@dataclass(frozen=True)
class Manifest:
    """The members of one archive, extracted and cut into parts."""

    archive: str
    sha256: str
    members: tuple[Member, ...]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read a manifest back."""
        members = tuple(Member.from_json(member) for member in document["members"])
        return cls(document["archive"], document["sha256"], members)


@dataclass(frozen=True)
class PartReport:
    """The account of one transformed part: ``read = written + quarantined + duplicate + filtered``, always.

    Attributes:
        table: ``source.table``.
        part: its number in the member.
        read: records, which is lines without the header.
        written: rows of ``rows.parquet``.
        quarantined: lines of ``quarantine.jsonl``.
        duplicate: rows equal to an earlier row of the part.
        filtered: by reason, records that are no rows (``blank_line``).
        nulled: by ``column:rule``, values that a declared rule turned into NULL (``declared``: one of the column's ``nulls``).
        changed: by ``column:rule``, values that a declared rule altered (``truncated``, ``control_character``).
        examples: by ``column:rule`` of ``nulled`` and ``changed``, the first three: ``line``, and ``text`` as it was unless the
            column is personal.
        refused: by ``column:rule``, quarantined lines; a line that breaks two rules counts under both.
        refused_together: by the rules that a quarantined line breaks (``column:rule``, joined by ``, ``), how many lines break just
            those; the commonest 100, the others under ``others``. They add up to ``quarantined``.
        nulls: by column, rows of ``rows.parquet`` without a value; columns that have none are left out.
        ranges: by column, its smallest and largest number or day written: a whole number, or its text. None of personal columns, of
            texts and booleans, and of columns without a value.
        figures: what the gate compares with the release before: ``zeros`` and ``sums`` by column of numbers, ``values`` by column of
            codes and value; see ``pipeline.transform.measures``. None: the part was made before they were taken.
        slow_rules: by ``column.rule`` that is not compiled: the ``seconds`` that it took, and how many values or rows it ``judged``.
        seconds: by the clock.
    """

    table: str
    part: int
    read: int
    written: int
    quarantined: int
    duplicate: int
    filtered: Mapping[str, int]
    nulled: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    changed: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    refused_together: Mapping[str, int] = field(default_factory=dict)
    nulls: Mapping[str, int] = field(default_factory=dict)
    ranges: Mapping[str, list[int | str]] = field(default_factory=dict)
    slow_rules: Mapping[str, dict[str, float]] = field(default_factory=dict)
    figures: Mapping[str, Any] | None = None

    @property
    def is_balanced(self) -> bool:
        """Whether every record read is accounted for."""
        return self.read == self.written + self.quarantined + self.duplicate + sum(self.filtered.values())

    @property
    def measured(self) -> dict[str, Any] | None:
        """``figures`` with ``nulls``; None: none were taken."""
        return None if self.figures is None else {**self.figures, "nulls": dict(self.nulls)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read a report back."""
        return cls(**document)


@dataclass(frozen=True)
class RawLine:
    r"""A line of a member, for a person to read and for a program to have its bytes.

    ``byte_offset`` is where it begins in the member. ``text`` is the line without its end; control characters besides TAB, and bytes
    that the encoding does not know, stand in it as ``\xNN``. ``base64`` has the bytes where ``text`` does not give them back.
    """

    byte_offset: int
    text: str
    base64: str | None = None

    @classmethod
    def of(cls, byte_offset: int, raw: bytes, encoding: str) -> Self:
        """The line whose bytes, without the line end, are ``raw``."""
        text = raw.decode(encoding, errors="backslashreplace")
        shown = _CONTROL_CHARACTER.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
        is_exact = shown == text and text.encode(encoding, errors="replace") == raw
        return cls(byte_offset, shown, None if is_exact else base64.b64encode(raw).decode("ascii"))


def read_json(path: Path) -> Any:
    """Read a JSON file (UTF-8)."""
    return json.loads(path.read_text(encoding="utf-8"))


def json_object(document: Any) -> dict[str, Any]:
    """A document that is an object; TypeError when it is a list, a number, a text or nothing."""
    if not isinstance(document, dict):
        raise TypeError(f"{type(document).__name__} where an object is to be")
    return document


#: What reading one of these files raises when its bytes are not those that were written: no JSON, or JSON of another shape.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
_Document = TypeVar("_Document")


def read_if_whole(path: Path, parse: Callable[[Any], _Document], on_event: OnEvent = ignore) -> _Document | None:
    """Read a JSON file that may be missing or damaged; both mean that what it speaks for is to be made again.

    Args:
        path: the file.
        parse: makes of the document what is returned; raises one of ``UNREADABLE`` when it is none.
        on_event: is told ``state.unreadable`` (path, error) of a file that is there and damaged.

    Returns:
        What ``parse`` made; None: there is no such file, or it is damaged.

    Raises:
        OSError: the disk does not read.
    """
    try:
        return parse(read_json(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UNREADABLE as error:
        on_event("state.unreadable", {"path": str(path), "error": f"{type(error).__name__}: {error}"})
        return None


def read_receipt(path: Path, on_event: OnEvent = ignore) -> Receipt | None:
    """A receipt; None where there is none that can be read, which costs a download and no more (see :func:`read_if_whole`)."""
    return read_if_whole(path, Receipt.from_json, on_event)


def write_json(path: Path, document: Any) -> None:
    """Write a dataclass or plain structure as JSON: temporary name, fsync, rename, fsync of the folder.

    A kill at any instant leaves the old file or the new one, never half of one.
    """
    if dataclasses.is_dataclass(document) and not isinstance(document, type):
        document = dataclasses.asdict(document)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(part, "w", encoding="utf-8") as out:
        json.dump(document, out, indent=1, sort_keys=True)
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_folder(part: Path, folder: Path) -> None:
    """Rename a finished working folder into place, durably: every file in it and both names are on disk.

    Args:
        part: the working folder, beside ``folder``, complete and closed.
        folder: the name that means "done". When another process got there first, its folder stays and ours is dropped:
            both were made from the same input.
    """
    for file in part.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    for inner in (*(path for path in part.rglob("*") if path.is_dir()), part):
        fsync_folder(inner)
    try:
        part.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(part)
    fsync_folder(folder.parent)
