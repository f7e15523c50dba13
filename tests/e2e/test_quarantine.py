"""The quarantine of a published release: counted, shown, exported, and gone once the schema file is mended."""

import csv

import pytest
from sample_site import REAL

KIND = 'type_interest    = { type = "text", source = "Type_Interest", '
BAD = 60
#: The line of a row that passes all rules and that PostgreSQL refuses.
LAST = 100


@pytest.fixture
def refused(world):
    """The published world, whose next recipe refuses the first 60 mineral accounts with a kind of interest that it does not list.

    PostgreSQL refuses one more: staging tables that are there already are used as they are.
    """
    lines = world.offered(REAL)["real_mnrl.txt"].splitlines(keepends=True)
    for place in range(BAD):
        lines[place] = lines[place].replace(lines[place].split(b"\t")[3], b"=ODD")
    world.offer(REAL, world.offered(REAL) | {"real_mnrl.txt": b"".join(lines)})
    world.edit_schema("hcad/real_mnrl.toml", KIND, KIND + "regex = '[A-Z ]+', ")
    world.configure(world.settings | {"load.quarantine_rows_per_rule": "50", "extract.part_bytes": "50000"})
    keys = f"etl_staging.i{world.one('select max(import_id) + 1 from etl.import')}_real_mnrl_keys"
    columns = "part integer not null, line bigint not null, acct text not null, row_hash uuid not null"
    world.sql(f"create unlogged table {keys} ({columns}, check (acct <> '{account(lines[LAST - 1])}'))")
    world.publish("--source", "hcad", "--year", "2025")
    return world


def account(line):
    return line.split(b"\t")[0].decode()


def quarantine(world, *arguments):
    done = world.do(*world.pipeline("quarantine", "hcad", *arguments))
    assert done.code == 0, done.text
    return done.out


@pytest.mark.fault(50)
def test_refused_rows_are_counted_shown_exported_and_come_in_after_the_schema_file_is_mended(refused):
    world = refused
    assert world.one("select count(*) from hcad.real_mnrl") == 7_262 - BAD - 1
    shown = quarantine(world, "--limit", "2")
    assert "type_interest:regex" in shown and f"{BAD + 1} rows are quarantined, 51 are kept here" in shown
    assert shown.count("  line ") == 2 and "line 1 " in shown and "line 2 " in shown
    assert "no row that is kept matches" in quarantine(world, "--column", "acct")
    assert quarantine(world, "--rule", "regex", "--table", "real_mnrl", "--limit", "100").count("  line ") == 50

    member = world.offered(REAL)["real_mnrl.txt"]
    line = member.splitlines(keepends=True)[29]
    detail = quarantine(world, "--line", "30")
    assert f"byte offset  {member.index(line)}" in detail and '{"type_interest": [' in detail
    assert repr(line.decode().rstrip("\r\n")) in detail

    last = member.splitlines(keepends=True)[LAST - 1]
    detail = quarantine(world, "--rule", "database", "--line", str(LAST))
    assert f"byte offset  {member.index(last)}" in detail and repr(last.decode().rstrip("\r\n")) in detail
    assert "violates check constraint" in detail and "SQLSTATE 23514" in detail

    file = world.home / "refused.csv"
    assert "50 rows are in" in quarantine(world, "--rule", "regex", "--csv", str(file))
    with open(file, encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["line"] for row in rows] == [str(n) for n in range(1, 51)]
    assert {row["rules"] for row in rows} == {"type_interest:regex"}
    assert rows[29]["raw"] == line.decode().rstrip("\r\n")

    world.edit_schema("hcad/real_mnrl.toml", "regex = '[A-Z ]+', ", "")
    place = world.mark()
    world.publish("--source", "hcad", "--year", "2025")
    assert world.asked(place) == [f"HEAD {REAL}"]
    assert world.one("select count(*) from hcad.real_mnrl") == 7_262
    assert world.one("select count(*) from hcad.real_mnrl where type_interest = '=ODD'") == BAD
    newest = world.one("select max(import_id) from etl.import")
    assert quarantine(world, "--import", str(newest)) == "nothing is quarantined\n"
    assert world.leftovers() == {}


def test_failed_check_is_told_by_the_run_and_by_status_and_holds_nothing_unless_it_is_an_error(world):
    world.edit_schema("hcad/real_acct.toml", "max = 2_500_000\n", "max = 40\n")
    # Checks are in no recipe: another release is what brings them to bear.
    world.offer(REAL, world.offered(REAL) | {"notes.txt": b"more\r\n"})
    told = "real_acct accounts: 50 rows, expected at most 40"
    assert told in world.publish("--source", "hcad", "--year", "2025").out
    status = world.do(*world.pipeline("status"))
    assert f"hcad 2025: {told} (a warning)" in status.out
    world.edit_schema("hcad/real_acct.toml", 'max = 40\nseverity = "warn"\n', "max = 40\n")
    world.offer(REAL, world.offered(REAL) | {"notes.txt": b"even more\r\n"})
    before = world.hashes()
    done = world.run("--source", "hcad", "--year", "2025")
    assert (done.code, "E_GATE" in done.text, told in done.text, world.hashes() == before) == (31, True, True, True)
