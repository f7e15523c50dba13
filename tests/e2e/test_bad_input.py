"""Bad input: what is published stays as it was and the run says why, or the one bad row is in quarantine and its neighbours are not."""

import json
import uuid
from collections import Counter

import pytest
from sample_site import BUNDLE, REAL, TRAVIS, members

HTML = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in to go on.</body></html>\n" * 40


@pytest.fixture(scope="module")
def travis_published(published, tmp_path_factory, server_url):
    """A copy of the published world with Travis 2019 published, too. Not to be changed: copy it."""
    with published.copy(tmp_path_factory.mktemp("worlds") / "travis", server_url) as world:
        world.edit_schema("travis/source.toml", "entity = 229", "entity = 200")
        world.offer(TRAVIS, members(BUNDLE / TRAVIS))
        world.publish("--source", "travis")
        yield world


@pytest.fixture
def travis(travis_published, tmp_path_factory, server_url):
    with travis_published.copy(tmp_path_factory.mktemp("worlds") / uuid.uuid4().hex[:8], server_url) as world:
        yield world


def run_is_refused(world, code, *arguments):
    """A run that ends with 31 and this error code, and leaves all that is published as it was; what it printed."""
    before = world.hashes(), world.currents()
    done = world.run(*(arguments or ("--source", "hcad", "--year", "2025")))
    assert (done.code, code in done.text) == (31, True), done.text + world.logs()
    assert (world.hashes(), world.currents()) == before
    (number, exit_code), *_ = world.sql("select run_id, exit_code from etl.run order by run_id desc limit 1")
    assert exit_code == 31
    assert (code,) in world.sql("select error_code from etl.task_attempt where run_id = %s and outcome = 'failed'", number)
    return done.text


def next_run_is_well(world, archive=REAL):
    """The good archive is back: nothing needs to be done, or mended by hand."""
    before = world.hashes(), world.currents()
    world.offer(archive, members(BUNDLE / archive))
    assert "nothing new" in world.publish("--source", "hcad", "--year", "2025").out
    assert (world.hashes(), world.currents()) == before


def with_member(world, name, content, archive=REAL):
    world.offer(archive, world.offered(archive) | {name: content})


def longer(line):
    """The line with one field more."""
    return line.rstrip(b"\r\n") + b"\tmore\n"


def quarantined(world, table):
    """Line, raw text, reasons of the newest import."""
    return world.sql(
        """select line, raw, reasons from etl.quarantine
            where table_name = %s and import_id = (select max(import_id) from etl.import) order by line""",
        table,
    )


def keys_of(world):
    return {acct for (acct,) in world.sql("select acct from hcad.real_mnrl")}


@pytest.mark.fault(26)
def test_zip_with_a_wrong_crc_is_refused_and_names_the_member(world):
    body = bytearray((world.bundle / REAL).read_bytes())
    local = body.index(b"real_mnrl.txt") - 30
    central = body.rindex(b"real_mnrl.txt") - 46
    assert body[local : local + 4] == b"PK\3\4" and body[central : central + 4] == b"PK\1\2"
    for place in (local + 14, central + 16):
        body[place] ^= 0xFF
    world.offer(REAL, bytes(body))
    assert "real_mnrl.txt" in run_is_refused(world, "E_ARCHIVE")
    next_run_is_well(world)
    assert world.leftovers() == {}


@pytest.mark.fault(15)
def test_html_page_under_the_name_of_a_zip_is_refused_and_not_kept_for_an_archive(world):
    kept = sorted((world.state / "archives" / "hcad" / "2025").iterdir())
    world.offer(REAL, HTML)
    run_is_refused(world, "E_NOT_ARCHIVE")
    assert sorted((world.state / "archives" / "hcad" / "2025").iterdir()) == kept
    next_run_is_well(world)
    assert world.leftovers() == {}


@pytest.mark.fault(33)
def test_missing_member_is_refused_by_its_name(world):
    offered = world.offered(REAL)
    del offered["real_mnrl.txt"]
    world.offer(REAL, offered)
    assert "real_mnrl.txt" in run_is_refused(world, "E_MEMBER")
    next_run_is_well(world)
    assert world.leftovers() == {}


@pytest.mark.fault(35)
def test_archive_of_another_year_is_refused_before_load_and_held(world):
    rows = world.offered(REAL)["real_acct.txt"].replace(b"\t2025\t", b"\t2024\t")
    with_member(world, "real_acct.txt", rows)
    assert "state 2024 (50 rows)" in run_is_refused(world, "E_VINTAGE")
    run_is_refused(world, "E_HELD")
    next_run_is_well(world)


@pytest.mark.fault(35)
@pytest.mark.parametrize(("old", "new"), [(b"20190015", b"20180015"), (b"TRAVIS CENTRAL", b"HIDALGO COUNTY")])
def test_export_of_another_year_or_county_is_refused_before_load(travis, old, new):
    world, offered = travis, travis.offered(TRAVIS)
    assert old in offered["APPR_HDR.TXT"]
    world.offer(TRAVIS, offered | {"APPR_HDR.TXT": offered["APPR_HDR.TXT"].replace(old, new)})
    assert "APPR_HDR.TXT says" in run_is_refused(world, "E_VINTAGE", "--source", "travis")
    run_is_refused(world, "E_HELD", "--source", "travis")


def test_verify_finds_nothing_after_a_run_and_a_changed_byte_afterwards(world):
    verified = world.do(*world.pipeline("verify", "--source", "hcad", "--year", "2025"))
    assert verified.code == 0 and "all as recorded" in verified.out, verified.text
    assert {line.split()[2] for line in verified.out.splitlines() if line.startswith("as recorded")} == {"archive", "members", "table"}
    (member,) = (world.state / "members" / "hcad" / "2025").glob("*/real_mnrl.txt")
    content = bytearray(member.read_bytes())
    content[100] ^= 1
    member.write_bytes(content)
    verified = world.do(*world.pipeline("verify", "--source", "hcad"))
    assert verified.code == 31 and "E_VERIFY" in verified.err and "DIFFERS  members" in verified.out, verified.text


def test_members_that_the_policy_removed_are_made_again_only_for_work(world):
    world.configure(world.settings | {"retention.members": "0", "retention.archives": "1"})
    world.publish("--source", "hcad")
    kept = world.state / "members" / "hcad" / "2025"
    assert list(kept.iterdir()) == []
    attempt = world.last_attempt()
    assert "nothing new" in world.publish("--source", "hcad").out
    assert "ExtractArchive" not in world.families(attempt) and list(kept.iterdir()) == []
    # Another recipe is work: the member comes out of the archive that was kept, without a download.
    attempt, place = world.last_attempt(), world.mark()
    column = 'interest_percent = { type = "numeric(9,6)", '
    world.edit_schema("hcad/real_mnrl.toml", column, f"{column}max = 2, ")
    world.publish("--source", "hcad", "--year", "2025")
    assert "ExtractArchive" in world.families(attempt)
    assert world.asked(place) == [f"HEAD {REAL}"] and list(kept.iterdir()) == []


@pytest.mark.fault(38)
def test_header_with_a_column_too_few_is_refused_and_held(world):
    lines = world.offered(REAL)["real_mnrl.txt"].splitlines()
    fewer = [b"\t".join(line.split(b"\t")[:3] + line.split(b"\t")[4:]) + b"\r\n" for line in lines]
    with_member(world, "real_mnrl.txt", b"".join(fewer))
    assert "type_interest" in run_is_refused(world, "E_HEADER").lower()
    attempt, place = world.last_attempt(), world.mark()
    run_is_refused(world, "E_HELD")
    assert world.families(attempt) == {"ProbeRelease", "SyncSource"}
    assert world.asked(place) == [f"HEAD {REAL}"]
    next_run_is_well(world)


@pytest.mark.fault(40)
def test_line_with_a_field_too_many_is_quarantined_and_its_neighbours_are_loaded(world):
    lines = world.offered(REAL)["real_mnrl.txt"].splitlines(keepends=True)
    acct = lines[99][:13].decode()
    lines[99] = longer(lines[99])
    with_member(world, "real_mnrl.txt", b"".join(lines))
    before = keys_of(world)
    world.publish("--source", "hcad", "--year", "2025")
    ((line, raw, reasons),) = quarantined(world, "real_mnrl")
    assert (line, raw) == (100, lines[99].decode().rstrip("\r\n"))
    assert reasons
    assert keys_of(world) == before - {acct}
    assert world.written("real_mnrl") == (0, 0, 1)
    assert world.leftovers() == {}


@pytest.mark.fault(42)
def test_nul_byte_is_quarantined_with_the_place_where_it_stood(world):
    lines = world.offered(REAL)["real_mnrl.txt"].splitlines(keepends=True)
    acct = lines[6_000][:13].decode()
    raw_before = lines[6_000].decode().rstrip("\r\n")
    lines[6_000] = lines[6_000].replace(b"\tWORKING\t", b"\tWORK\0ING\t")
    assert b"\0" in lines[6_000]
    with_member(world, "real_mnrl.txt", b"".join(lines))
    before = keys_of(world)
    world.publish("--source", "hcad", "--year", "2025")
    ((line, raw, reasons),) = quarantined(world, "real_mnrl")
    assert line == 6_001
    assert raw == raw_before.replace("WORKING", "WORK\\x00ING")
    assert reasons
    assert keys_of(world) == before - {acct}


@pytest.mark.fault(39)
def test_unbalanced_quote_loses_no_row_and_no_character(world):
    header, *rows = world.offered(REAL)["real_neighborhood_code.txt"].splitlines(keepends=True)
    edited = list(rows)
    for place, where in ((10, "front"), (5_000, "middle"), (12_000, "end")):
        code, group, text = edited[place].rstrip(b"\r\n").split(b"\t")
        text = {"front": b'"' + (text or b"X"), "middle": b'A "B' + text, "end": (text or b"X") + b'"'}[where]
        edited[place] = b"\t".join([code, group, text]) + b"\r\n"
    with_member(world, "real_neighborhood_code.txt", b"".join([header, *edited]))
    world.publish("--source", "hcad", "--year", "2025")
    expected = Counter(
        tuple(field.strip(" ") or None for field in line.decode("cp1252").rstrip("\r\n").split("\t")) for line in edited
    )
    assert Counter(world.sql("select cd, grp_cd, dscr from hcad.real_neighborhood_code")) == expected
    quoted = world.sql("select dscr from hcad.real_neighborhood_code where dscr like %s", '%"%')
    assert len([text for (text,) in quoted if text.count('"') == 1]) >= 3
    assert quarantined(world, "real_neighborhood_code") == []
    assert world.written("real_neighborhood_code") == (0, 3, 0)


@pytest.mark.fault(40)
def test_fixed_width_record_one_byte_short_is_quarantined_and_its_neighbours_are_loaded(travis):
    world, before = travis, travis.hashes()
    lines = world.offered(TRAVIS)["ENTITY.TXT"].splitlines(keepends=True)
    short = lines[57].rstrip(b"\r\n")[:-1]
    lines[57] = short + b"\r\n"
    with_member(world, "ENTITY.TXT", b"".join(lines), TRAVIS)
    world.publish("--source", "travis")
    ((line, raw, reasons),) = quarantined(world, "entity")
    assert (line, raw) == (58, short.decode())
    assert reasons
    expected = {int(text[:12]) for number, text in enumerate(lines, 1) if number != 58}
    assert {number for (number,) in world.sql("select entity_id from travis.entity")} == expected
    after = world.hashes()
    assert {name for name in after if after[name] != before[name]} == {"travis.entity.2019"}


@pytest.mark.fault(49)
def test_release_below_its_floor_stays_invisible_until_a_person_accepts_it(world):
    *rows, header = world.offered(REAL)["real_mnrl.txt"].splitlines(keepends=True)
    with_member(world, "real_mnrl.txt", b"".join([*rows[:7_199], header]))
    assert "7199, expected at least 7200" in run_is_refused(world, "E_GATE")
    refused = world.one("select import_id from etl.import where state = 'refused'")
    attempt = world.last_attempt()
    run_is_refused(world, "E_HELD")
    assert world.families(attempt) == {"ProbeRelease", "SyncSource"}
    report = json.loads(world.do(*world.pipeline("report", str(refused), "--json")).out)
    assert (report["checks"][0]["check"], report["checks"][0]["passed"]) == ("rows", False)
    attempt = world.last_attempt()
    done = world.publish("--source", "hcad", "--year", "2025", "--accept", "the wells were closed")
    assert f"import {refused} of 2025 is accepted by " in done.out
    assert world.sql("select reason, checks from etl.decision") == [("the wells were closed", [["real_mnrl", "built_in", "rows"]])]
    # What was staged before the gate refused it is published as it is.
    assert world.tables_of("StagePart", attempt) == set()
    assert world.one("select import_id from etl.import where state = 'published' and tax_year = 2025") == refused
    assert world.hashes()["hcad.real_mnrl.2025"][0] == 7_199
    assert world.leftovers() == {}


@pytest.mark.fault(49)
def test_release_exactly_at_its_floor_is_published(world):
    *rows, header = world.offered(REAL)["real_mnrl.txt"].splitlines(keepends=True)
    with_member(world, "real_mnrl.txt", b"".join([*rows[:7_200], header]))
    world.publish("--source", "hcad", "--year", "2025")
    assert world.hashes()["hcad.real_mnrl.2025"][0] == 7_200


@pytest.mark.fault(50)
def test_more_quarantined_rows_than_allowed_stop_before_anything_is_published(world):
    lines = world.offered(REAL)["real_mnrl.txt"].splitlines(keepends=True)
    few = 7_262 // 100
    for place in range(few + 1):
        lines[place] = longer(lines[place])
    with_member(world, "real_mnrl.txt", b"".join(lines))
    world.edit_schema("hcad/source.toml", "real_mnrl = 7_200", "real_mnrl = 7_000")
    assert f"{few + 1} of 7262 rows" in run_is_refused(world, "E_GATE")
    assert len(quarantined(world, "real_mnrl")) == few + 1
