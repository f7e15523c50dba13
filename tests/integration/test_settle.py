"""Settling: which of the lines with one key stands, and what the others are counted as, however the member was cut."""

import dataclasses
from decimal import Decimal

import pytest
from county import FEATURE, ORIGIN, OWNER

from pipeline.errors import GateRefused
from pipeline.handoff import Member, Part, RawLine
from pipeline.load.checkpoints import Origin

A, B, C = ("1", "A", None), ("1", "B", None), ("1", "C", None)
OTHER = ("2", "BOB", Decimal("2.00"))
POOLS = [("1", "POOL")]


def cuts(rows):
    """The rows in one part, in two at every place, and each in a part of its own."""
    yield [rows]
    for place in range(1, len(rows)):
        yield [rows[:place], rows[place:]]
    yield [[row] for row in rows]


@pytest.mark.fault(46)
@pytest.mark.parametrize(
    ("policy", "rows", "stands", "quarantined", "duplicate", "superseded"),
    [
        ("quarantine", [A, B, A, OTHER], "A", 1, 1, 0),
        ("refuse", [A, B, A, OTHER], "A", 1, 1, 0),
        ("first", [A, B, A, OTHER], "A", 0, 2, 1),
        ("last", [A, B, A, OTHER], "A", 0, 2, 1),
        ("first", [A, B, OTHER, B], "A", 0, 2, 1),
        ("last", [A, B, OTHER, B], "B", 0, 2, 1),
        ("last", [A, B, C, B, A, C], "C", 0, 5, 2),
        ("first", [A, A, OTHER, A], "A", 0, 2, 0),
        ("last", [A, A, OTHER, A], "A", 0, 2, 0),
    ],
)
def test_policy_decides_which_line_stands_however_the_member_is_cut(
    world, policy, rows, stands, quarantined, duplicate, superseded
):
    table = dataclasses.replace(OWNER, on_conflict=policy)
    for number, parts in enumerate(cuts(rows)):
        settled = world.stage(world.key(str(number)), table, parts)
        keys = len({row[0] for row in rows})
        assert (settled.rows_read, settled.rows_loaded) == (len(rows), keys)
        assert (settled.quarantined, settled.conflicting) == (quarantined, quarantined)
        assert (settled.duplicate, settled.superseded) == (duplicate, superseded)
        (import_id,) = world.rows("select max(import_id) from etl.import")[0]
        assert world.rows(f"select name from etl_staging.i{import_id}_owner_rows where acct = '1'") == [(stands,)]
        assert world.rows("select count(*) from etl.quarantine where import_id = %s", import_id) == [(quarantined,)]


@pytest.mark.parametrize(("policy", "stands"), [("first", "A"), ("last", "C")])
def test_superseded_rows_reach_the_ledger_and_the_row_that_stands_the_live_table(world, policy, stands):
    world.declare(dataclasses.replace(OWNER, on_conflict=policy))
    key = world.key("a")
    world.stage(key, world.county.table("owner"), [[A, OTHER], [B, C]])
    world.stage(key, FEATURE, [POOLS])
    world.loads.check_release(key, world.county)
    world.loads.publish(key, world.county)
    assert world.rows("select name from county.owner where acct = '1'") == [(stands,)]
    figures = "select rows_read, rows_loaded, quarantined, duplicate, superseded from etl.import_table where table_name = 'owner'"
    assert world.rows(figures) == [(4, 2, 0, 2, 2)]


def test_row_that_stands_and_is_live_already_is_not_written_again(world):
    world.declare(dataclasses.replace(OWNER, on_conflict="last"))
    owner = world.county.table("owner")
    world.publish("a", [B, OTHER], POOLS)
    key = world.key("b")
    world.stage(key, owner, [[A], [B], [OTHER]])
    world.stage(key, FEATURE, [POOLS])
    world.loads.check_release(key, world.county)
    changes = world.loads.publish(key, world.county)["owner"]
    assert (changes.inserted, changes.updated, changes.deleted) == (0, 0, 0)
    assert world.rows("select name from county.owner order by acct") == [("B",), ("BOB",)]


@pytest.mark.fault(46)
def test_refuse_holds_the_release_for_a_single_conflict(world):
    world.declare(dataclasses.replace(OWNER, on_conflict="refuse"))
    key = world.key("a")
    world.stage(key, world.county.table("owner"), [[A, OTHER], [B]])
    world.stage(key, FEATURE, [POOLS])
    with pytest.raises(GateRefused, match="owner conflicting: 1 of 3 rows, expected at most 0"):
        world.loads.check_release(key, world.county)


@pytest.mark.fault(46)
@pytest.mark.parametrize("policy", ["quarantine", "first", "last"])
def test_half_of_the_file_with_keys_of_the_other_half_stops_at_the_gate(world, policy):
    world.declare(dataclasses.replace(OWNER, on_conflict=policy), max_conflicting_share=0.49)
    owners = [(str(n), "FIRST", None) for n in range(50)]
    again = [(str(n), "SECOND", None) for n in range(50)]
    key = world.key("a")
    settled = world.stage(key, world.county.table("owner"), [owners, again])
    assert (settled.rows_read, settled.rows_loaded, settled.conflicting + settled.superseded) == (100, 50, 50)
    world.stage(key, FEATURE, [POOLS])
    with pytest.raises(GateRefused, match="owner conflicting: 50 of 100 rows, expected at most 49"):
        world.loads.check_release(key, world.county)


def test_conflicts_are_kept_up_to_the_cap_and_their_lines_alone_are_read(world):
    world.loads.quarantine_rows = 3
    rows = [("1", f"N{n}", None) for n in range(10)]
    key, asked = world.key("a"), []
    world.loads.open_import(key, OWNER)
    for number, row in enumerate(rows):
        world.loads.stage_part(key, OWNER, world.part(OWNER, [row], part=number, first_line=number + 1), origin=ORIGIN)

    def raw_lines(numbers):
        asked.extend(numbers)
        return {number: RawLine(10 * number, f"line {number}", "bA==") for number in numbers}

    settled = world.loads.settle_table(key, OWNER, origin=ORIGIN, parts=10, records=10, raw_lines=raw_lines)
    assert (settled.quarantined, dict(settled.refused)) == (9, {"acct:conflicting": 9})
    assert asked == [2, 3, 4]
    kept = world.rows("select part, line, byte_offset, member_sha256, raw, raw_base64, rules from etl.quarantine order by line")
    assert kept == [(n - 1, n, 10 * n, ORIGIN.member_sha256, f"line {n}", "bA==", ["acct:conflicting"]) for n in (2, 3, 4)]


def test_raw_line_of_a_member_has_its_place_and_its_bytes(tmp_path):
    from pipeline.extract.lookup import raw_lines

    body = b"one\r\n\xe9t\xe9\r\nt\0wo\nthree\x81\r\n\tlast"
    path = tmp_path / "member.txt"
    path.write_bytes(body)
    parts = (Part(0, 0, 10, 1, 2), Part(1, 10, len(body), 3, 3))
    member = Member("m", "m", len(body), "s", 5, "", "", 3, 1, True, {}, 0, parts)
    found = raw_lines(path, member, [1, 2, 3, 4, 5], "cp1252")
    assert found == {
        1: RawLine(0, "one"),
        2: RawLine(5, "\u00e9t\u00e9"),
        3: RawLine(10, "t\\x00wo", "dAB3bw=="),
        4: RawLine(15, "three\\x81", "dGhyZWWB"),
        5: RawLine(23, "\tlast"),
    }


def test_origin_of_a_conflict_is_the_member(world):
    key = world.key("a")
    origin = Origin("sha-of-member", "t1", "c1")
    world.stage(key, OWNER, [[A], [B]], origin=origin)
    assert world.rows("select member_sha256, line, byte_offset from etl.quarantine") == [("sha-of-member", 2, 200)]
