"""A small source on disk that a test may break in one place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SOURCE = """\
[source]
name = "tiny"
title = "Tiny county"
publisher = "Tiny Appraisal District"
homepage = "https://tiny.example/"
licence = "public record"
base_url = "https://tiny.example/roll"
tax_years = [2024, 2025]

[archives.roll]
path = "{year}/roll.zip"

[gate]
max_quarantined_share = 0.02
[gate.floors]
owner = 1_000

[profile.sample]
base_url = "${TINY_URL}/tiny"
tax_years = [2025]
allow_addresses = ["127.0.0.0/8"]
archives = { 2025 = ["roll"] }
tables = ["owner"]
[profile.sample.gate.floors]
owner = 3
"""

OWNER = """\
# A comment.
[table]
name = "owner"
archive = "roll"
member = "owner.txt"
key = ["acct"]
doc = "Owners"

[[layout]]
years = [2020, 2099]
format = "delimited"

[columns]
acct  = { type = "text", required = true, regex = '^[0-9]{6}$', doc = "Account" }
name  = { type = "text", personal = true, normalize = ["collapse_blanks"], doc = "Owner" }
share = { type = "numeric(7,4)", min = 0, max = 100.5, doc = "Percent" }
since = { type = "date", formats = ["%m/%d/%Y"], nulls = ["12/30/1899"], min = "1800-01-01", doc = "Day" }
alive = { type = "boolean", true = ["Y"], false = ["N"], on_error = "null", doc = "Y or N" }

[[index]]
columns = ["name"]

[[example]]
year = 2025
line = "000001\\tA\\t50\\t12/30/1899\\tY"
gives = { acct = "000001", share = "50" }
gives_null = ["since"]
"""

FIXED = """\
[table]
name = "parcel"
archive = "roll"
member = "parcel.txt"
parent = ["acct"]

[[layout]]
format = "fixed_width"
record_width = 10

[[layout]]
format = "fixed_width"
record_width = 12
[layout.positions]
area = [7, 12]

[columns]
acct = { type = "text", start = 1, end = 6, required = true }
area = { type = "bigint", start = 7, end = 10 }
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the source ``tiny``, each file with its replacements ``(old, new)`` applied, and give its folder."""

    def write_source(**edits: tuple[str, str]) -> Path:
        folder = tmp_path / "schemas" / "tiny"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in {"source": SOURCE, "owner": OWNER, "parcel": FIXED}.items():
            if name in edits:
                old, new = edits[name]
                assert old in text, f"{old!r} is not in {name}.toml: the test would break nothing"
                text = text.replace(old, new, 1)
            (folder / f"{name}.toml").write_text(text, encoding="utf-8")
        return folder

    return write_source
