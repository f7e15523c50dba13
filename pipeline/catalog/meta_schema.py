"""What a schema file may say: the Cerberus meta-schemas of ``source.toml`` and of a table file.

They hold the shape only: which keys there are, of which type, with which values. What needs two keys at once (a key
column that exists, positions that do not overlap) is in ``checks``. A key that is not here is refused, and each key
here has a line in ``schemas/README.md``, which a test compares. Fractions come as ``Decimal``, because the files are
read so; a binary fraction would make a rule such as ``max = 0.1`` mean another number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, ClassVar

from cerberus import TypeDefinition, Validator

#: Also the law for names of sources, tables, columns and profiles: PostgreSQL identifiers that need no quotes.
IDENTIFIER = "^[a-z][a-z0-9_]{0,62}$"
#: An archive's name becomes the name of a folder.
ARCHIVE_NAME = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
#: A member is named by its last path component.
MEMBER_NAME = r"^[^/\\\x00-\x1f]{1,255}$"
TYPE = r"^(text|integer|bigint|date|boolean|numeric\([1-9][0-9]?, ?[0-9]{1,2}\))$"
#: Encodings whose line ends and delimiters are single ASCII bytes, which is what cutting a member into parts relies on.
ENCODINGS = ("ascii", "cp1252", "latin-1", "utf-8")
#: Column keys that are Cerberus rules and go to it under the same name.
#: Cerberus' own ``required`` and ``nullable`` are keys of their own, and ``type`` follows from the column's.
OWN_RULES = ("regex", "min", "max", "allowed", "forbidden", "minlength", "maxlength", "empty", "check_with")
OF_RULES = ("anyof", "allof", "noneof", "oneof")
ROW_RULES = ("dependencies", "excludes")
RULES = (*OWN_RULES, *OF_RULES, *ROW_RULES)
#: What ``check_with`` may name; ``pipeline.transform.check_with`` holds the functions.
CHECKS_WITH = ("account_number", "phone", "year", "zip_code")
#: Steps of ``normalize``; ``pipeline.transform.normalize`` holds what they do.
STEPS = ("collapse_blanks", "upper", "lower", "title", "strip_zeros", "account_number", "phone", "zip_code")
#: What ``compute`` may name; ``pipeline.transform.compute`` holds the functions.
FUNCTIONS = ("join", "situs_address", "sum", "bathrooms", "coalesce")
MAX_REGEX_CHARACTERS = 1_000
#: What tells one release of an archive from the next; see ``pipeline.download.fingerprint``.
VALIDATORS = ("etag", "last_modified", "bytes", "listing")

_NAME: dict[str, Any] = {"type": "string", "regex": IDENTIFIER}
_ARCHIVE: dict[str, Any] = {"type": "string", "regex": ARCHIVE_NAME}
_MEMBER: dict[str, Any] = {"type": "string", "regex": MEMBER_NAME}
#: A tax year as a key, which TOML has as text.
_YEAR_KEY: dict[str, Any] = {"type": "string", "regex": "^[12][0-9]{3}$"}
_TEXT: dict[str, Any] = {"type": "string", "minlength": 1}
_DOC: dict[str, Any] = {"type": "string"}
_FLAG: dict[str, Any] = {"type": "boolean"}
_COUNT: dict[str, Any] = {"type": "integer", "min": 0}
_POSITION: dict[str, Any] = {"type": "integer", "min": 1}
_YEAR: dict[str, Any] = {"type": "integer", "min": 1900, "max": 2100}
_YEARS: dict[str, Any] = {"type": "list", "minlength": 2, "maxlength": 2, "schema": _YEAR}
_TAX_YEARS: dict[str, Any] = {"type": "list", "minlength": 1, "schema": _YEAR}
_SHARE: dict[str, Any] = {"type": ["integer", "decimal"], "min": 0, "max": 1}
_BOUND: dict[str, Any] = {"type": ["integer", "decimal", "string", "date"]}
_CHOICES: dict[str, Any] = {"type": "list", "minlength": 1, "schema": {"type": ["integer", "string"]}}


def _names(rule: Mapping[str, Any] = _NAME, *, least: int = 0) -> dict[str, Any]:
    """A list of texts that follow a rule."""
    return {"type": "list", "minlength": least, "schema": dict(rule)}


def _needed(rule: Mapping[str, Any]) -> dict[str, Any]:
    """A rule of a key that must be there."""
    return {**rule, "required": True}


def _section(keys: Mapping[str, Any]) -> dict[str, Any]:
    """A table with these keys."""
    return {"type": "dict", "schema": dict(keys)}


#: A field in a member's first record.
_FIELD: dict[str, Any] = {
    "archive": _needed(_ARCHIVE),
    "member": _needed(_MEMBER),
    "start": _needed(_POSITION),
    "end": _needed(_POSITION),
}

#: The checks of ``[gate.drift]`` that a file may have told instead of held.
DRIFT_CHECKS = ("keys_lost", "rows_lost", "rows_gained", "null_rise", "sum_factor", "value_shift", "shifted_columns")
_DRIFT: dict[str, Any] = {
    "max_keys_lost": _SHARE,
    "max_rows_lost": _SHARE,
    "max_rows_gained": {"type": ["integer", "decimal"], "min": 0},
    "max_null_rise": _SHARE,
    "max_sum_factor": {"type": ["integer", "decimal"], "min": 1},
    "max_value_shift": _SHARE,
    "max_shifted_columns": _SHARE,
    "min_rows": {"type": "integer", "min": 1},
    "warn": _names({"type": "string", "allowed": list(DRIFT_CHECKS)}),
}
_GATE: dict[str, Any] = {
    "type": "dict",
    "schema": {
        "max_quarantined_share": _SHARE,
        "max_conflicting_share": _SHARE,
        "max_quarantined_rows": _COUNT,
        "floors": {"type": "dict", "keysrules": _NAME, "valuesrules": _COUNT},
        "quarantined_shares": {"type": "dict", "keysrules": _NAME, "valuesrules": _SHARE},
        "quarantined_rows": {"type": "dict", "keysrules": _NAME, "valuesrules": _COUNT},
        "drift": _section(_DRIFT),
        "table_drift": {"type": "dict", "keysrules": _NAME, "valuesrules": _section(_DRIFT)},
    },
}

_PROBE: dict[str, Any] = {
    "type": "dict",
    "schema": {
        "listing": {"type": "string", "regex": "^https?://[^?#]+$"},
        "listing_sections": _names({"type": "string", "regex": "^[^/]+/[^/]+$"}, least=1),
        "listing_complete": {"type": "string", "allowed": ["listed", "dated", "certified"]},
        "fingerprint": _names({"type": "string", "allowed": list(VALIDATORS)}, least=1),
        "year_policy": {"type": "string", "allowed": ["strict", "newest"]},
        "lookback_years": {"type": "integer", "min": 0, "max": 50},
    },
}

#: ``schemas/<source>/source.toml``
SOURCE_FILE: dict[str, Any] = {
    "source": _needed(
        _section(
            {
                "name": _needed(_NAME),
                "title": _needed(_TEXT),
                "publisher": _needed(_TEXT),
                "homepage": {"type": "string", "required": True, "regex": "^https?://.+$"},
                "licence": _needed(_TEXT),
                "doc": _DOC,
                "enabled": _FLAG,
                "base_url": _needed(_TEXT),
                "tax_years": _needed(_TAX_YEARS),
                "tables": _TEXT,
                "allow_addresses": _names(_TEXT),
                "allow_http": _FLAG,
                "mirrors": _names({"type": "string", "regex": "^https?://[^?#]+$"}),
            }
        )
    ),
    "probe": _PROBE,
    "version": _section(_FIELD),
    "expect": {"type": "list", "schema": _section({**_FIELD, "value": _needed(_TEXT)})},
    "archives": {
        "type": "dict",
        "required": True,
        "minlength": 1,
        "keysrules": _ARCHIVE,
        "valuesrules": {
            "type": "dict",
            "schema": {
                "path": _needed(_TEXT),
                "required": _FLAG,
                "years": _YEARS,
                "nested": _FLAG,
                "fallback": _TEXT,
                "aliases": _names(_TEXT, least=1),
                "sha256": {"type": "dict", "keysrules": _YEAR_KEY, "valuesrules": {"type": "string", "regex": "^[0-9a-f]{64}$"}},
            },
        },
    },
    "limits": {
        "type": "dict",
        "schema": {
            "max_members": _POSITION,
            "max_member_bytes": _POSITION,
            "max_ratio": {"type": ["integer", "decimal"], "min": 1},
            "max_bytes": _POSITION,
        },
    },
    "gate": _GATE,
    "profile": {
        "type": "dict",
        "keysrules": {**_NAME, "forbidden": ["production"]},
        "valuesrules": {
            "type": "dict",
            "schema": {
                "enabled": _FLAG,
                "base_url": _TEXT,
                "tax_years": _TAX_YEARS,
                "allow_addresses": _names(_TEXT),
                "archives": {"type": "dict", "keysrules": _YEAR_KEY, "valuesrules": _names(_ARCHIVE, least=1)},
                "tables": _names(least=1),
                "gate": _GATE,
                "probe": _PROBE,
            },
        },
    },
}

#: The rules that a value can be held to by itself.
_OWN_RULES: dict[str, Any] = {
    "regex": {"type": "string", "minlength": 1, "maxlength": MAX_REGEX_CHARACTERS},
    "min": _BOUND,
    "max": _BOUND,
    "allowed": _CHOICES,
    "forbidden": _CHOICES,
    "minlength": _COUNT,
    "maxlength": _COUNT,
    "empty": _FLAG,
    "check_with": {"type": "string", "allowed": list(CHECKS_WITH)},
}
_RULE_SETS: dict[str, Any] = {"type": "list", "minlength": 1, "schema": {"type": "dict", "minlength": 1, "schema": _OWN_RULES}}

_COLUMN: dict[str, Any] = {
    "type": {"type": "string", "regex": TYPE, "required": True},
    "source": _TEXT,
    "aliases": _names(_TEXT),
    "required": _FLAG,
    "nullable": _FLAG,
    **_OWN_RULES,
    **dict.fromkeys(OF_RULES, _RULE_SETS),
    "dependencies": _names(least=1),
    "excludes": _names(least=1),
    "nulls": _names(_TEXT),
    "formats": _names(_TEXT, least=1),
    "true": _names(_TEXT, least=1),
    "false": _names(_TEXT, least=1),
    "implied_decimals": {"type": "integer", "min": 0, "max": 18},
    "on_error": {"type": "string", "allowed": ["quarantine", "null", "truncate"]},
    "controls": {"type": "string", "allowed": ["refuse", "blank"]},
    "normalize": _names({"type": "string", "regex": f"^({'|'.join(STEPS)}|zero_pad:[1-9][0-9]?)$"}),
    "compute": {
        "type": "dict",
        "schema": {
            "function": {"type": "string", "allowed": list(FUNCTIONS), "required": True},
            "of": {**_names(least=1), "required": True},
        },
    },
    "start": _POSITION,
    "end": _POSITION,
    "personal": _FLAG,
    "doc": _DOC,
}

#: ``schemas/<source>/<table>.toml``
TABLE_FILE: dict[str, Any] = {
    "table": _needed(
        _section(
            {
                "name": _needed(_NAME),
                "archive": _needed(_ARCHIVE),
                "member": _needed(_MEMBER),
                "member_aliases": _names(_MEMBER),
                "required": _FLAG,
                "years": _YEARS,
                "key": _names(),
                "parent": _names(),
                "on_conflict": {"type": "string", "allowed": ["quarantine", "first", "last", "refuse"]},
                "nulls": _names(_TEXT, least=1),
                "year_column": _NAME,
                "doc": _DOC,
            }
        )
    ),
    "layout": {
        "type": "list",
        "required": True,
        "minlength": 1,
        "schema": {
            "type": "dict",
            "schema": {
                "format": {"type": "string", "required": True, "allowed": ["delimited", "fixed_width"]},
                "years": _YEARS,
                "versions": _names(_TEXT),
                "record_width": _POSITION,
                "includes_line_end": _FLAG,
                "delimiter": {"type": "string", "regex": r"^[^\r\n\x00A-Za-z0-9 ]$"},
                "quote": {"type": "string", "regex": r"^[!-/:-@\[-`{-~]$"},
                "encoding": {"type": "string", "allowed": list(ENCODINGS)},
                "header": {"type": "string", "allowed": ["detect", "first", "last", "none"]},
                "positions": {
                    "type": "dict",
                    "keysrules": _NAME,
                    "valuesrules": {"type": "list", "minlength": 2, "maxlength": 2, "schema": _POSITION},
                },
                "absent": _names(),
                "unknown_columns": {"type": "string", "allowed": ["refuse", "ignore", "keep"]},
                "order": _names(least=1),
                "aliases": {"type": "dict", "keysrules": _NAME, "valuesrules": _names(_TEXT, least=1)},
                "fingerprint": {
                    "type": "dict",
                    "minlength": 1,
                    "keysrules": _NAME,
                    "valuesrules": {"type": "string", "minlength": 1, "maxlength": MAX_REGEX_CHARACTERS},
                },
            },
        },
    },
    "unpivot": _section(
        {
            "years": _needed(_YEARS),
            "members": {"type": "dict", "required": True, "minlength": 1, "keysrules": _NAME, "valuesrules": _MEMBER},
            "category": _needed(_NAME),
            "categories": _needed(_names(_TEXT, least=1)),
        }
    ),
    "columns": {
        "type": "dict",
        "required": True,
        "minlength": 1,
        "keysrules": _NAME,
        "valuesrules": {"type": "dict", "schema": _COLUMN},
    },
    "index": {
        "type": "list",
        "schema": {
            "type": "dict",
            "schema": {"columns": _needed(_names(least=1)), "using": {"type": "string", "allowed": ["btree", "trgm"]}},
        },
    },
    "check": {
        "type": "list",
        "schema": {
            "type": "dict",
            "schema": {
                "name": _needed(_NAME),
                "kind": {"type": "string", "required": True, "allowed": ["rows", "fill", "unique", "reference", "sum"]},
                "columns": _names(least=1),
                "min": {"type": ["integer", "decimal"]},
                "max": {"type": ["integer", "decimal"]},
                "table": _NAME,
                "to": _names(least=1),
                "severity": {"type": "string", "allowed": ["warn", "error"]},
                "doc": _DOC,
            },
        },
    },
    "example": {
        "type": "list",
        "schema": {
            "type": "dict",
            "schema": {
                "year": _needed(_YEAR),
                "line": _needed(_TEXT),
                "gives": {"type": "dict", "keysrules": _NAME, "valuesrules": {"type": "string"}},
                "gives_null": _names(least=1),
                "refused": _NAME,
            },
        },
    },
}


class MetaValidator(Validator):  # type: ignore[misc]
    """Cerberus with ``Decimal`` as a type of its own, and true as no whole number; unknown keys are refused at every depth."""

    types_mapping: ClassVar[dict[str, TypeDefinition]] = {
        **Validator.types_mapping,
        "decimal": TypeDefinition("decimal", (Decimal,), ()),
        "integer": TypeDefinition("integer", (int,), (bool,)),
    }


@cache
def table_validator() -> MetaValidator:
    """The validator of table files: taking the meta-schema apart anew for each of 67 would take half of their loading."""
    return MetaValidator(TABLE_FILE, allow_unknown=False)


def rules_at(schema: Mapping[str, Any], path: tuple[str | int, ...]) -> Mapping[str, Any]:
    """The meta-schema's keys that may stand inside the table at ``path``."""
    rule: Mapping[str, Any] = {"schema": schema}
    for step in path:
        if "valuesrules" in rule:
            rule = rule["valuesrules"]
        elif rule.get("type") == "list":
            rule = rule["schema"]
        else:
            rule = rule["schema"][step]
    inside: Mapping[str, Any] = rule.get("schema", {})
    return inside


def all_keys(schema: Mapping[str, Any], inside: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every key of a meta-schema as (the tables it stands in, the key); ``*`` stands for a name that the file chooses."""
    for key, rule in schema.items():
        yield inside, key
        here = (*inside, key)
        while rule.get("type") == "list" or "valuesrules" in rule:
            here = (*here, "*") if "valuesrules" in rule else here
            rule = rule.get("valuesrules") or rule["schema"]
        yield from all_keys(rule.get("schema", {}), here)
