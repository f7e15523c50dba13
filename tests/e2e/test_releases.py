"""Releases and recipes that change, change back, are taken back and let through; and what a run then does, and does not."""

import csv
import json
import random
from collections import Counter
from decimal import Decimal

import pytest
from sample_site import HEARINGS, REAL

SYNCS_ONLY = {"ProbeRelease", "SyncSource", "SyncAll"}
HEADS_ONLY = [f"HEAD {HEARINGS}", f"HEAD {REAL}"]
SAMPLE_OF_CHANGES = random.Random(20250301)
#: A rule of real_mnrl that some of its rows break: for that they are quarantined, not made NULL.
UNRULED = 'source = "Interest_Percent", nulls = ["Pending"], on_error = "null"'
RULED = 'max = 0.9, source = "Interest_Percent", nulls = ["Pending"]'


def next_release(world):
    """Real_acct_owner.zip with 10 rows of real_mnrl changed, 5 new and 3 gone; Hearing_files.zip with rows gone, doubled and new."""
    real = world.offered(REAL)
    *rows, header = real["real_mnrl.txt"].splitlines(keepends=True)
    chosen = SAMPLE_OF_CHANGES.sample(range(len(rows)), 13)
    changed, gone = {rows[place] for place in chosen[:10]}, {rows[place] for place in chosen[10:]}
    new = [f"49999999{number:05d}\tG1\t115251\tROYALTY\t0.000{number}\r\n".encode() for number in range(11, 16)]
    kept = [row.replace(b"\tG1\t", b"\tG2\t") if row in changed else row for row in rows if row not in gone]
    world.offer(REAL, real | {"real_mnrl.txt": b"".join([*kept, *new, header])})
    protests = world.offered(HEARINGS)["arb_protest_real.txt"].splitlines(keepends=True)
    new_protests = [f"19999999{number:05d}\tOwner\t05/15/2019\r\n".encode() for number in range(4)]
    after = [*protests[7:], *protests[100:103], *protests[100:101], *new_protests, *new_protests[:1]]
    world.offer(HEARINGS, {"arb_protest_real.txt": b"".join(after)})
    return changed, gone, new


PROTESTS = "select acct, protested_by, protested_dt, seq, import_id from hcad.arb_protest_real"


@pytest.fixture(scope="module")
def refreshed(published, tmp_path_factory, server_url):
    """A copy of the published world in which the next release is published, too; with what was before, and what was seen."""
    with published.copy(tmp_path_factory.mktemp("worlds") / "refreshed", server_url) as world:
        world.rows = {row[0]: row[:2] for row in world.sql("select acct, (select jsonb_object_agg(key, value) from jsonb_each_text(to_jsonb(r))), dor_cd from hcad.real_mnrl r")}
        world.protests_before = world.sql(PROTESTS)
        world.changed, world.gone, world.new = next_release(world)
        world.attempt, world.place = world.last_attempt(), world.mark()
        world.done = world.publish("--source", "hcad")
        yield world


@pytest.fixture
def refreshed_copy(refreshed, tmp_path_factory, server_url):
    """A copy that a test may change. The imports are 1 and 2 of the first release, 3 and 4 of the next."""
    home = tmp_path_factory.mktemp("copies") / f"copy-{tmp_path_factory.mktemp('name').name}"
    with refreshed.copy(home, server_url) as world:
        yield world


@pytest.fixture(scope="module")
def ruled(published, tmp_path_factory, server_url):
    """A copy of the published world in which a rule of real_mnrl came in."""
    with published.copy(tmp_path_factory.mktemp("worlds") / "ruled", server_url) as world:
        world.edit_schema("hcad/real_mnrl.toml", UNRULED, RULED)
        world.attempt, world.place = world.last_attempt(), world.mark()
        world.done = world.publish("--source", "hcad")
        yield world


def current(world, year=2025):
    return world.one("select import_id from etl.import where state = 'published' and source = 'hcad' and tax_year = %s", year)


@pytest.mark.traced
def test_second_run_probes_and_does_nothing_else(world):
    before, attempt, place = world.currents(), world.last_attempt(), world.mark()
    imports = world.one("select count(*) from etl.import")
    done = world.publish("--source", "hcad")
    assert "nothing new" in done.out
    assert world.families(attempt) == SYNCS_ONLY
    assert sorted(world.asked(place)) == HEADS_ONLY
    assert (world.currents(), world.one("select count(*) from etl.import")) == (before, imports)
    assert world.leftovers() == {}


@pytest.mark.traced
def test_replaced_archives_are_downloaded_once_each(refreshed):
    # After the last download of a release its archives are asked for once more: they may have been replaced meanwhile.
    assert sorted(refreshed.asked(refreshed.place)) == sorted([*HEADS_ONLY, *HEADS_ONLY, f"GET {HEARINGS}", f"GET {REAL}"])


def test_only_tables_whose_member_changed_are_transformed_and_staged(refreshed):
    assert refreshed.tables_of("TransformPart", refreshed.attempt) == {"real_mnrl", "arb_protest_real"}
    assert refreshed.tables_of("StagePart", refreshed.attempt) == {"real_mnrl", "arb_protest_real"}
    dispositions = refreshed.sql(
        "select table_name, disposition, inserted + updated + deleted from etl.import_table where import_id = %s order by 1",
        current(refreshed),
    )
    assert dispositions == [("real_acct", "unchanged", 0), ("real_mnrl", "staged", 18), ("real_neighborhood_code", "unchanged", 0)]


def test_ten_changed_five_new_and_three_gone_are_eighteen_rows_written(refreshed):
    assert refreshed.written("real_mnrl") == (5, 10, 3)
    assert refreshed.one("select count(*) from hcad.real_mnrl where import_id = %s", current(refreshed)) == 15
    assert refreshed.one("select count(*) from hcad.real_mnrl where dor_cd = 'G2'") == 10


def test_history_holds_the_rows_as_they_were(refreshed):
    history = refreshed.sql("select operation, acct, etl.before_image(import_id, 'real_mnrl', before_image) from history.hcad_real_mnrl where import_id = %s", current(refreshed))
    assert Counter(row[0] for row in history) == {"U": 10, "D": 3, "I": 5}
    accounts = {operation: {acct for kind, acct, _ in history if kind == operation} for operation in "UDI"}
    assert accounts == {
        operation: {line.split(b"\t")[0].decode() for line in lines}
        for operation, lines in (("U", refreshed.changed), ("D", refreshed.gone), ("I", refreshed.new))
    }
    for operation, acct, before in history:
        assert before == (None if operation == "I" else refreshed.rows[acct][1])


def test_rows_without_a_key_are_written_as_the_exact_multiset_difference(refreshed):
    before, after = refreshed.protests_before, refreshed.sql(PROTESTS)
    old, new = Counter(row[:3] for row in before), Counter(row[:3] for row in after)
    inserted, updated, deleted = refreshed.written("arb_protest_real")
    assert (inserted, updated, deleted) == ((new - old).total(), 0, (old - new).total())
    assert (inserted, deleted) == (9, 7)
    # What is in both keeps its place and its import; what was written carries the new one.
    identity = Counter(row for row in before)
    assert (Counter(after) - identity).total() == 9
    assert {row[4] for row in after if row not in identity} == {current(refreshed, 2019)}


def test_published_rows_are_the_lines_of_the_new_member(refreshed):
    *lines, _ = refreshed.offered(REAL)["real_mnrl.txt"].decode("cp1252").splitlines()
    expected = Counter((acct, use, lease, kind, Decimal(share)) for acct, use, lease, kind, share in (line.split("\t") for line in lines))
    rows = refreshed.sql("select acct, dor_cd, rail_leasenum, type_interest, interest_percent from hcad.real_mnrl")
    assert Counter(rows) == expected


def test_shuffled_file_of_rows_without_a_key_writes_nothing(refreshed_copy):
    world = refreshed_copy
    before = world.sql(PROTESTS + " order by acct, seq")
    lines = world.offered(HEARINGS)["arb_protest_real.txt"].splitlines(keepends=True)
    SAMPLE_OF_CHANGES.shuffle(lines)
    world.offer(HEARINGS, {"arb_protest_real.txt": b"".join(lines)})
    place = world.mark()
    world.publish("--source", "hcad", "--year", "2019")
    assert world.asked(place) == [f"HEAD {HEARINGS}", f"GET {HEARINGS}", f"HEAD {HEARINGS}"]
    assert world.written("arb_protest_real") == (0, 0, 0)
    assert world.sql(PROTESTS + " order by acct, seq") == before


@pytest.mark.traced
def test_rollback_restores_the_content_exactly_and_holds_the_release_until_it_is_accepted(refreshed_copy, published):
    world, was = refreshed_copy, published.hashes()
    new, number = world.hashes(), current(world)
    first = world.one("select base_import_id from etl.import where import_id = %s", number)
    refused = world.do(*world.pipeline("rollback", str(first), "--reason", "not the newest"))
    assert (refused.code, "E_ROLLBACK" in refused.err, world.hashes()) == (31, True, new)

    done = world.do(*world.pipeline("rollback", str(number), "--reason", "a test"))
    assert done.code == 0, done.text
    assert {name: found for name, found in world.hashes().items() if "2025" in name} == {name: was[name] for name in was if "2025" in name}
    assert current(world) == first
    assert world.one("select count(*) from history.hcad_real_mnrl where import_id = %s", number) == 0
    other = world.do(*world.pipeline("rollback", str(number), "--reason", "again"))
    assert (other.code, "already" in other.out, current(world)) == (0, True, first)

    attempt = world.last_attempt()
    held = world.run("--source", "hcad", "--year", "2025")
    assert (held.code, "E_HELD" in held.text) == (31, True), held.text
    assert world.families(attempt) == {"ProbeRelease", "SyncSource"}
    assert current(world) == first

    assert world.do(*world.pipeline("accept", str(number), "--reason", "it was right")).code == 0
    place = world.mark()
    world.publish("--source", "hcad", "--year", "2025")
    assert world.asked(place) == [f"HEAD {REAL}"]
    assert world.hashes() == new
    assert world.sql("select action, reason from etl.decision order by decision_id") == [("rollback", "a test"), ("accept", "it was right")]
    assert world.leftovers() == {}


def test_rollback_restores_rows_without_a_key_with_their_seq(refreshed_copy, refreshed):
    world = refreshed_copy
    done = world.do(*world.pipeline("rollback", str(current(world, 2019)), "--reason", "a test"))
    assert done.code == 0, done.text
    assert Counter(world.sql(PROTESTS)) == Counter(refreshed.protests_before)


def test_release_offered_again_after_another_is_published_again(refreshed_copy, published):
    world, newer = refreshed_copy, refreshed_copy.hashes()
    later = {archive: world.offered(archive) for archive in (REAL, HEARINGS)}
    for archive in later:
        world.offer(archive, published.offered(archive))
    place = world.mark()
    world.publish("--source", "hcad")
    assert world.hashes() == published.hashes()
    assert [row[1:] for row in world.currents()] == [row[1:] for row in published.currents()]
    assert {row[0] for row in world.currents()}.isdisjoint(row[0] for row in published.currents())
    # The archives of the first release are still there.
    assert sorted(world.asked(place)) == HEADS_ONLY
    for archive, content in later.items():
        world.offer(archive, content)
    world.publish("--source", "hcad")
    assert world.hashes() == newer
    assert world.leftovers() == {}


def test_added_rule_transforms_only_its_table_and_downloads_nothing(ruled):
    assert ruled.tables_of("TransformPart", ruled.attempt) == {"real_mnrl"}
    assert ruled.tables_of("StagePart", ruled.attempt) == {"real_mnrl"}
    assert sorted(ruled.asked(ruled.place)) == HEADS_ONLY


def test_rows_that_break_a_rule_are_in_quarantine_with_line_text_and_reasons(ruled, published):
    *lines, _ = ruled.offered(REAL)["real_mnrl.txt"].decode("cp1252").splitlines()
    broken = {number: line for number, line in enumerate(lines, 1) if Decimal(line.split("\t")[4]) > Decimal("0.9")}
    rows = ruled.sql("select line, raw, reasons from etl.quarantine where import_id = %s", current(ruled))
    assert broken
    assert {line: raw for line, raw, _ in rows} == broken
    assert all(list(reasons) == ["interest_percent"] and "0.9" in str(reasons) for _, _, reasons in rows)
    assert ruled.written("real_mnrl") == (0, 0, len(broken))
    assert ruled.hashes()["hcad.real_mnrl.2025"][0] == published.hashes()["hcad.real_mnrl.2025"][0] - len(broken)
    shown = ruled.do(*ruled.pipeline("quarantine", "hcad", "--limit", "1000"))
    assert shown.out.count("interest_percent: max value is 0.9") == len(broken)


def test_recipe_changed_and_changed_back_is_published_each_time(ruled, published, tmp_path_factory, server_url):
    home = tmp_path_factory.mktemp("copies") / "unruled"
    with ruled.copy(home, server_url) as world:
        recipes = [row[4] for row in world.currents()]
        world.edit_schema("hcad/real_mnrl.toml", RULED, UNRULED)
        attempt = world.last_attempt()
        world.publish("--source", "hcad", "--year", "2025")
        assert world.hashes() == published.hashes()
        assert [row[1:] for row in world.currents()] == [row[1:] for row in published.currents()]
        assert [row[4] for row in world.currents()] != recipes
        assert world.tables_of("StagePart", attempt) == {"real_mnrl"}
        assert world.written("real_mnrl")[1:] == (0, 0)


def test_typo_mended_in_a_doc_changes_nothing(world):
    before, attempt = world.currents(), world.last_attempt()
    world.edit_schema("hcad/real_mnrl.toml", "Account number of the mineral interest", "Account number of a mineral interest")
    world.publish("--source", "hcad")
    assert world.families(attempt) == SYNCS_ONLY
    assert world.currents() == before


def change_two_tables(world):
    """A release in which a row of real_mnrl and one of real_acct have other values."""
    real = world.offered(REAL)
    *rows, header = real["real_mnrl.txt"].splitlines(keepends=True)
    rows[0] = rows[0].replace(b"\tG1\t", b"\tG3\t")
    accounts = real["real_acct.txt"].splitlines(keepends=True)
    # The account's first column stays, its last figure changes.
    place = next(place for place, line in enumerate(accounts) if line.split(b"\t")[0].strip().isdigit())
    accounts[place] = accounts[place].replace(b"\t2025\t", b"\t2025\t")
    fields = accounts[place].split(b"\t")
    column = next(number for number, text in enumerate(fields) if number > 5 and text.strip().isalpha() and text.strip().isupper())
    fields[column] = b"ZZ" if len(fields[column].strip()) > 1 else b"Z"
    accounts[place] = b"\t".join(fields)
    world.offer(REAL, real | {"real_mnrl.txt": b"".join([*rows, header]), "real_acct.txt": b"".join(accounts)})


def test_import_of_one_table_leaves_the_others_to_the_next_whole_import(refreshed_copy):
    world, before = refreshed_copy, refreshed_copy.hashes()
    change_two_tables(world)
    base = current(world)
    attempt = world.last_attempt()
    done = world.run("--source", "hcad", "--year", "2025", "--table", "real_mnrl")
    assert (done.code, "only real_mnrl of the release" in done.out) == (0, True), done.text
    after = world.hashes()
    assert {name for name in after if after[name] != before[name]} == {"hcad.real_mnrl.2025"}
    assert world.tables_of("TransformPart", attempt) == {"real_mnrl"}
    partial = current(world)
    assert world.one("select only_tables from etl.import where import_id = %s", partial) == ["real_mnrl"]
    dispositions = dict(world.sql("select table_name, disposition from etl.import_table where import_id = %s", partial))
    assert dispositions == {"real_acct": "carried_over", "real_mnrl": "staged", "real_neighborhood_code": "carried_over"}

    # The whole release is new all the same, and of it what has not been imported yet.
    attempt = world.last_attempt()
    world.publish("--source", "hcad", "--year", "2025")
    assert world.tables_of("TransformPart", attempt) == {"real_acct"}
    assert {name for name in world.hashes() if world.hashes()[name] != after[name]} == {"hcad.real_acct.2025"}
    whole = world.hashes()
    # Some tables of what is current are current.
    assert "nothing new" in world.run("--source", "hcad", "--year", "2025", "--archive", "Real_acct_owner").out
    for _ in range(2):
        assert world.do(*world.pipeline("rollback", str(current(world)), "--reason", "a test")).code == 0
    assert (current(world), world.hashes()) == (base, before)
    # Taken back as a whole, it does not come again in pieces.
    held = world.run("--source", "hcad", "--year", "2025", "--table", "real_acct")
    assert (held.code, "E_HELD" in held.text, world.hashes()) == (31, True, before)
    # Another release does.
    next_release(world)
    world.publish("--source", "hcad", "--year", "2025")
    assert world.hashes()["hcad.real_mnrl.2025"] not in (before["hcad.real_mnrl.2025"], whole["hcad.real_mnrl.2025"])


def test_tables_that_there_are_not_are_refused_before_anything_is_done(world):
    probes = world.mark()
    for wrong in (("--table", "nothing"), ("--archive", "Nothing.zip"), ("--table", "arb_protest_real", "--year", "2025")):
        done = world.run("--source", "hcad", *wrong)
        assert (done.code, "E_CONFIG" in done.text) == (40, True), done.text
    assert world.run("--table", "real_mnrl").code == 40
    assert world.asked(probes) == []


def test_what_a_release_changed_is_told_by_table_by_column_and_by_value(refreshed, tmp_path):
    number = str(current(refreshed))
    overview = refreshed.do(*refreshed.pipeline("diff", number))
    assert overview.code == 0, overview.text
    lines = [line.split() for line in overview.out.splitlines()]
    assert ["real_mnrl", "5", "10", "3"] in lines and ["real_mnrl", "dor_cd", "10"] in lines
    values = refreshed.do(*refreshed.pipeline("diff", number, "--table", "real_mnrl", "--column", "dor_cd", "--limit", "100"))
    assert values.out.count("updated: dor_cd 'G1' -> 'G2'") == 10 and values.out.count("\n") == 18
    file = tmp_path / "changes.csv"
    assert refreshed.do(*refreshed.pipeline("diff", number, "--rows", "--csv", str(file))).code == 0
    with open(file, encoding="utf-8-sig", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert Counter(row["operation"] for row in rows if row["column"] == "acct") == {"inserted": 5, "deleted": 3}
    few = refreshed.do(*refreshed.pipeline("diff", number, "--rows", "--limit", "2"))
    assert "--limit shows more than 2" in few.out
    first = refreshed.one("select base_import_id from etl.import where import_id = %s", int(number))
    assert "the first of its tax year" in refreshed.do(*refreshed.pipeline("diff", str(first))).out
    unknown = refreshed.do(*refreshed.pipeline("diff", "999"))
    assert (unknown.code, "E_HISTORY" in unknown.err) == (31, True)


@pytest.mark.traced
def test_query_reads_tables_as_they_were_after_an_import(refreshed):
    first = refreshed.one("select base_import_id from etl.import where import_id = %s", current(refreshed))
    asked = ["query", "select dor_cd, count(*) from real_mnrl where dor_cd = 'G2' group by 1", "--csv"]
    assert refreshed.do(*refreshed.pipeline(*asked, "--as-of", str(current(refreshed)))).out.split() == ["dor_cd,count", "G2,10"]
    assert refreshed.do(*refreshed.pipeline(*asked, "--as-of", str(first))).out.split() == ["dor_cd,count"]


def plan(world, *arguments):
    done = world.do(*world.pipeline("plan", "--source", "hcad", *arguments, "--json"))
    assert done.code == 0, done.text
    (one,) = json.loads(done.out)
    return one, {archive["name"]: archive["does"] for archive in one["archives"]}, {table["name"]: table["does"] for table in one["tables"]}


def test_plan_says_what_a_run_would_do_and_does_nothing(world):
    imports, place = world.one("select count(*) from etl.import"), world.mark()
    one, archives, tables = plan(world, "--year", "2025", "--offline")
    assert world.asked(place) == []
    assert (one["tax_year"], archives) == (2025, {"Real_acct_owner": "use it: it is here"})
    assert (set(tables.values()), one["conclusion"]) == ({"keep"}, f"the release is current (import {current(world)}): a run would do nothing (exit code 0)")

    next_release(world)
    world.edit_schema("hcad/real_acct.toml", 'min = 0, nulls = ["Pending"], on_error = "null", doc = "Total building area', 'doc = "Total building area')
    one, archives, tables = plan(world, "--year", "2025")
    assert world.asked(place) == [f"HEAD {REAL}"]
    assert archives == {"Real_acct_owner": "fetch it"}
    assert tables == {"real_acct": "compare", "real_mnrl": "compare", "real_neighborhood_code": "compare"}
    assert [table["why"] for table in one["tables"]] == ["its schema file has changed, too", "", ""]
    size = one["archives"][0]["bytes"]
    told = f"a run would fetch 1 archive of {size:,} bytes; tables: compare 3; then the gate, and one publish of tax year 2025"
    assert (one["conclusion"], size) == (told, (world.bundle / REAL).stat().st_size)
    assert world.one("select count(*) from etl.import") == imports

    # The other year's archive is as it was, and so is its schema file: of what is here nothing is fetched.
    world.edit_schema("hcad/arb_protest_real.toml", 'protested_by = { type = "text"', 'protested_by = { type = "text", maxlength = 9')
    one, archives, tables = plan(world, "--year", "2019", "--offline")
    assert (archives, tables) == ({"Hearing_files": "use it: it is here"}, {"arb_protest_real": "read again"})
    assert one["conclusion"] == "a run would fetch nothing; tables: read again 1; then the gate, and one publish of tax year 2019"
    missing = world.do(*world.pipeline("plan", "--source", "hcad", "--year", "2026"))
    assert "hcad has not published 2026 yet: a run would do nothing (exit code 20)" in missing.out
