"""The output of the transform, fixed to the byte: whoever changes it must raise the transform's revision."""

import json
import os
from pathlib import Path

from member_maker import BIGINT, BOOLEAN, DATE, INTEGER, TEXT, numeric, table

from pipeline.catalog.model import Column, Layout
from pipeline.catalog.recipe import TRANSFORM_REVISION

GOLDEN = Path(__file__).parents[2] / "fixtures" / "golden" / "transform.json"

OF = table(
    Column("acct", TEXT, "acct", required=True, rules={"regex": r"^\d{13}$"}),
    Column("owner", TEXT, "owner", normalize=("collapse_blanks", "upper"), rules={"maxlength": 20}),
    Column("yr", INTEGER, "yr", rules={"min": 1800, "max": 2100}, nulls=("0",)),
    Column("val", BIGINT, "val", rules={"min": 0}),
    Column("acreage", numeric(14, 4), "acreage"),
    Column("size", numeric(16, 4), "size", implied_decimals=4),
    Column("dt", DATE, "dt", formats=("%m/%d/%Y",), nulls=("12/30/1899",), on_error="null"),
    Column("capped", BOOLEAN, "capped", true_codes=("Y",), false_codes=("N",)),
    Column("cls", TEXT, "cls", rules={"allowed": ["A1", "B1"], "forbidden": ["B1"]}),
    Column("gone", TEXT, "gone"),
    key=("acct",),
    layouts=(Layout("delimited", absent=("gone",), unknown_columns="ignore"),),
)

MEMBER = b"\r\n".join([
    b"ACCT\tcls\towner\tyr\tval\tacreage\tsize\tdt\tcapped\textra",
    b"0010010000013            \tA1\tcity  of\tx\t1\t2\t3\t4\t5\t6",  # shifted by a field: refused by its types
    b"0010010000013            \tA1\tcity  of houston\t2025\t376607\t1.0200\t00000005739000\t01/02/1988\tN\t ",
    b"0010010000014\t \tPe\xf1a & \x93Sons\x94\t0\t-0\t.5\t\t12/30/1899\tY\t",
    b"0010010000013\tA1\tCITY OF HOUSTON\t2025\t376607.00\t1.02\t5739000\t01/02/1988\tN\tdifferent",  # the second line again
    b"0010010000013\tA1\tCITY OF HOUSTON\t2025\t376608\t1.02\t5739000\t01/02/1988\tN\t",  # conflicts with it
    b"0010010000015\tA1\t6\" PIPE\t2024\t\t\t\t02/30/2024\t\t",
    b"",
    b"1010010000016\tB1\tAN OWNER WITH TOO LONG A NAME\t1492\t-5\t1.23456\t1.5\t01/02/1988\tX\t",
    b"\tA1\tNO ACCOUNT\t2025\t1\t1\t1\t01/02/1988\tN\t",
    b"0010010000017\tA1\tNUL \0\t2025\t1\t1\t1\t01/02/1988\tN\t",
    b"0010010000018\tA1\tUNDEFINED \x81\t2025\t1\t1\t1\t01/02/1988\tN\t",
    b"0010010000019\tA1\tCONTROL \x02\t2025\t1\t1\t1\t01/02/1988\tN\t",
    b"0010010000020\tA1\tSHORT",
    b"acct\tcls\towner\tyr\tval\tacreage\tsize\tdt\tcapped\textra",
    b"0010010000021\tA1\tLAST\t2025\t9223372036854775807\t9999999999.9999\t1\t12/31/2199\tY\t",
])  # fmt: skip


def test_output_is_the_golden_one_or_the_transform_revision_is_raised(transformed):
    outcome = transformed(MEMBER, OF)
    report = outcome.report
    made = {
        "transform_revision": TRANSFORM_REVISION,
        "rows": [
            {name: None if value is None else str(value) for name, value in row.items()} for row in outcome.rows.to_pylist()
        ],
        "quarantine": outcome.quarantine,
        "report": {
            name: getattr(report, name)
            for name in vars(report)
            if name not in ("seconds", "slow_rules")
        },
    }
    if os.environ.get("WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert made == golden, (
        "The transform gives other output for the same member. If that is meant, raise TRANSFORM_REVISION in "
        "pipeline/catalog/recipe.py, so that every part is transformed again, and run this test with WRITE_GOLDEN=1."
    )
