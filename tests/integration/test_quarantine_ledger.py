"""The quarantine in the ledger: all rows counted by rule, the first of each rule kept, and read back by a person."""

import io
import json

import pytest
from county import FEATURE, ORIGIN, OWNER

from pipeline.database.engine import transaction
from pipeline.quarantine import Wanted, detail_lines, overview_lines, read_quarantine, write_csv
from pipeline.status import query


def refused(line, *rules, raw=None, **more):
    """A line of quarantine.jsonl."""
    reasons = {}
    for rule in rules:
        reasons.setdefault(rule.split(":")[0], []).append(f"breaks {rule}")
    return json.dumps(
        {"line": line, "offset": 100 * line, "raw": raw or f"raw {line}", "rules": list(rules), "reasons": reasons, **more}
    )


def stage(world, key, parts, table=OWNER, order=None):
    """Stage parts of refused lines alone, in some order, and settle."""
    world.loads.open_import(key, table)
    for number in order or range(len(parts)):
        world.loads.stage_part(key, table, world.part(table, [], part=number, quarantined=parts[number]), origin=ORIGIN)
    return world.settle(key, table, parts=len(parts), records=sum(map(len, parts)))


def kept(world, import_id):
    return [line for (line,) in world.rows("select line from etl.quarantine where import_id = %s order by line", import_id)]


LINES = [refused(n, "acct:regex") for n in range(1, 8)] + [
    refused(8, "name:maxlength"),
    refused(9, "acct:regex", "name:maxlength"),
    refused(10, "name:maxlength", "value:min"),
    refused(11, "name:maxlength"),
    refused(12, "acct:regex"),
]


@pytest.mark.fault(50)
@pytest.mark.parametrize("cut", [[LINES], [LINES[:5], LINES[5:]], [[line] for line in LINES]], ids=["1 part", "2 parts", "12 parts"])
@pytest.mark.parametrize("backwards", [False, True])
def test_all_rows_are_counted_and_the_first_of_each_rule_kept_however_the_member_is_cut(world, cut, backwards):
    world.loads.quarantine_rows = 3
    order = range(len(cut))[::-1] if backwards else None
    settled = stage(world, world.key("a"), cut, order=order)
    assert settled.quarantined == 12
    assert dict(settled.refused) == {"acct:regex": 9, "name:maxlength": 4, "value:min": 1}
    # The first three of acct:regex and of name:maxlength; line 10 is the third of the latter and the only one of value:min.
    assert kept(world, 1) == [1, 2, 3, 8, 9, 10]


def test_chunks_that_were_judged_out_of_order_keep_the_first_lines_too(world):
    world.loads.quarantine_rows = 2
    stage(world, world.key("a"), [[refused(n, "acct:regex") for n in (9, 1, 4, 5)]])
    assert kept(world, 1) == [1, 4]


def test_row_has_all_that_the_part_says_of_it(world):
    line = refused(7, "*:nul_byte", "acct:regex", raw="a\\x00b", raw_base64="YQBi", source="county", encoding="cp1252")
    stage(world, world.key("a"), [[line]])
    (row,) = query(world.engine, "select * from etl.quarantine")
    assert (row["line"], row["byte_offset"], row["member_sha256"]) == (7, 700, ORIGIN.member_sha256)
    assert (row["raw"], row["raw_base64"]) == ("a\\x00b", "YQBi")
    assert row["rules"] == ["*:nul_byte", "acct:regex"]
    assert row["reasons"] == {"*": ["breaks *:nul_byte"], "acct": ["breaks acct:regex"]}


def test_counts_outlive_a_crash_that_empties_staging_and_are_not_counted_twice(world):
    world.loads.quarantine_rows = 2
    key = world.key("a")
    stage(world, key, [LINES[:6], LINES[6:]])
    with transaction(world.engine) as cursor:
        cursor.execute("truncate etl.checkpoint, etl.staged_table, etl_staging.i1_owner_rows")
    assert world.rows("select sum(quarantined) from etl.quarantine_part") == [(12,)]
    settled = stage(world, key, [LINES[:6], LINES[6:]])
    assert (settled.quarantined, settled.refused["acct:regex"]) == (12, 9)
    assert world.rows("select sum(quarantined) from etl.quarantine_part") == [(12,)]
    assert kept(world, 1) == [1, 2, 8, 9, 10]


def test_published_table_states_its_refused_rows_by_rule_and_an_unchanged_one_still_does(world):
    key = world.key("a")
    stage(world, key, [[refused(1, "acct:regex"), refused(2, "acct:regex", "name:maxlength")]])
    world.stage(key, FEATURE, [[("1", "POOL")]])
    world.loads.check_release(key, world.county)
    world.loads.publish(key, world.county)
    counts = "select refused from etl.import_table where table_name = 'owner' order by import_id"
    assert world.rows(counts) == [({"acct:regex": 2, "name:maxlength": 1},)]
    again = world.key("b")
    for table in (OWNER, FEATURE):
        world.loads.open_import(again, table)
        assert world.loads.keep_table(again, table, member_sha256=ORIGIN.member_sha256, recipe="t1")
    world.loads.check_release(again, world.county)
    world.loads.publish(again, world.county)
    assert world.rows(counts) == [({"acct:regex": 2, "name:maxlength": 1},)] * 2


def read(world, **wanted):
    found = read_quarantine(world.engine, Wanted("county", **wanted))
    return found and [(row["table_name"], row["line"]) for row in found.rows]


def test_rows_are_found_by_table_rule_column_and_line(world):
    world.loads.quarantine_rows = 3
    key = world.key("a")
    assert read(world) is None
    stage(world, key, [LINES])
    stage(world, key, [[refused(1, "*:field_count")]], table=FEATURE)
    assert read(world) == [("feature", 1), *(("owner", n) for n in (1, 2, 3, 8, 9, 10))]
    assert read(world, limit=2) == [("feature", 1), ("owner", 1)]
    assert read(world, table="owner", limit=1) == [("owner", 1)]
    assert read(world, rule="maxlength") == read(world, rule="name:maxlength") == [("owner", 8), ("owner", 9), ("owner", 10)]
    assert read(world, column="*") == [("feature", 1)]
    assert read(world, column="name", rule="regex") == []
    assert read(world, line=1) == [("feature", 1), ("owner", 1)]
    assert read(world, import_id=1, line=4) == []
    assert read(world, import_id=2) is None
    found = read_quarantine(world.engine, Wanted("county", table="owner", column="acct"))
    assert list(overview_lines(found)) == [
        "import 1: county 2025, release a, staging",
        "  owner  acct:regex  9",
        "  12 rows are quarantined, 6 are kept here, the first of each rule",
    ]


def test_key_of_two_columns_is_found_by_either(world):
    stage(world, world.key("a"), [[refused(1, "acct, code:conflicting")]])
    assert read(world, column="code") == read(world, column="acct") == read(world, rule="conflicting") == [("owner", 1)]


def test_one_row_is_shown_with_all_that_is_known_of_it(world):
    stage(world, world.key("a"), [[refused(7, "acct:regex", raw="x\ty")]])
    found = read_quarantine(world.engine, Wanted("county", line=7))
    shown = "\n".join(detail_lines(found.rows[0]))
    for words in ("line 7", "part         0", "byte offset  700", "sha256 m1", "acct:regex", '{"acct": ["breaks acct:regex"]}', r"'x\ty'"):
        assert words in shown
    assert "raw_base64" not in shown


def test_file_for_a_spreadsheet_holds_every_row_and_no_formula(world):
    import csv

    texts = ["=1+2", "+1", "-1+2", "@SUM(A1)", "\tx", "\rx", "plain", "a=b", '"q", r', "\u00e9\n2"]
    stage(world, world.key("a"), [[refused(n, "acct:regex", raw=text) for n, text in enumerate(texts, 1)]])
    out = io.StringIO(newline="")
    write_csv(read_quarantine(world.engine, Wanted("county")).rows, out)
    rows = list(csv.DictReader(io.StringIO(out.getvalue(), newline="")))
    assert [row["raw"] for row in rows] == [f"'{text}" if n < 6 else text for n, text in enumerate(texts)]
    assert [row["line"] for row in rows] == [str(n) for n in range(1, 11)]
    assert (rows[0]["rules"], json.loads(rows[0]["reasons"])) == ("acct:regex", {"acct": ["breaks acct:regex"]})
