"""What a source offers: its listing, its archives' addresses, and the tax year that its policy takes."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fixtures.tiny_county import write_county

from pipeline.catalog import load_source
from pipeline.catalog.model import Source
from pipeline.download import DownloadManager, fingerprint
from pipeline.download.fingerprint import pinned
from pipeline.download.listing import Listing
from pipeline.download.mirror import KnownArchive
from pipeline.download.offer import Places, choose, survey
from pipeline.errors import AddressRefused, DownloadError, DownloadRefused, ListingError, ReleaseChanged
from pipeline.releases import ArchiveIdentity, archive_files

DAY = "Sat, 26 Sep 2026 10:00:00 GMT"
UPDATED = "September 20, 2026"
Make = Callable[..., Source]


@pytest.fixture
def make(server: Any, tmp_path: Path) -> Make:
    """A source at the server: ``roll`` is required, ``hearings`` is not; more text goes into ``[probe]`` and the archives."""

    def make_source(probe: str = "", roll: str = "", hearings: str = "", mirrors: tuple[str, ...] = (), base_url: str = "") -> Source:
        texts = {"probe": probe, "roll": roll, "hearings": hearings}
        return load_source(write_county(tmp_path / "tiny", base_url or server.url("/roll"), year=2026, mirrors=mirrors, **texts))

    return make_source


@pytest.fixture
def publish(server: Any) -> Callable[..., None]:
    """Put bodies at paths; everything else is 404."""
    bodies: dict[str, tuple[str, bytes, Mapping[str, str]]] = {}

    class Routes(dict):  # type: ignore[type-arg]
        def __missing__(self, path: str) -> Any:
            def route(request: Any) -> None:
                status, body, headers = bodies.get(request.path, ("404 Not Found", b"", {}))
                request.answer(status, headers, body)

            return route

    server.routes = Routes()

    def put(path: str, body: bytes | str = b"PK", status: str = "200 OK", **headers: str) -> None:
        usual = {"Last-Modified": DAY} | {name.replace("_", "-"): value for name, value in headers.items()}
        bodies[path] = (status, body.encode() if isinstance(body, str) else body, usual)

    return put


def asked(server: Any) -> list[str]:
    return [f"{request.method} {request.path}" for request in server.requests]


@pytest.mark.fault(8)
def test_strict_policy_takes_the_year_asked_for_or_none(server: Any, make: Make, publish: Any, manager: DownloadManager) -> None:
    publish("/roll/2025/Roll.zip")
    choice = choose(manager, make(), 2026)
    assert (choice.policy, choice.taken, [offer.year for offer in choice.considered]) == ("strict", None, [2026])
    assert (choice.considered[0].missing, choice.considered[0].lacks) == (("roll",), "no roll")
    assert asked(server) == ["HEAD /roll/2026/Roll.zip", "HEAD /roll/2026/Hearings.zip"]


def test_newest_policy_takes_the_newest_complete_year_whole(make: Make, publish: Any, manager: DownloadManager) -> None:
    """2026 has its hearings and no roll yet: nothing of 2026 gets into the release of 2025."""
    publish("/roll/2026/Hearings.zip", b"PK 2026")
    publish("/roll/2025/Roll.zip", b"PK roll")
    publish("/roll/2024/Roll.zip")
    publish("/roll/2024/Hearings.zip")
    choice = choose(manager, make('year_policy = "newest"\nlookback_years = 5'), 2026)
    assert [(offer.year, offer.lacks) for offer in choice.considered] == [(2026, "no roll"), (2025, "")]
    assert choice.taken is not None and choice.taken.year == 2025
    assert choice.taken.fingerprints == {"roll": fingerprint(None, DAY, 7)}


def test_newest_policy_looks_back_no_further_than_it_may(make: Make, publish: Any, manager: DownloadManager) -> None:
    publish("/roll/2023/Roll.zip")
    for years, found in ((2, None), (3, 2023)):
        taken = choose(manager, make(f'year_policy = "newest"\nlookback_years = {years}'), 2026).taken
        assert (taken and taken.year) == found


def test_newest_policy_asks_for_no_year_of_which_no_table_is_wanted(server: Any, make: Make, publish: Any, manager: DownloadManager) -> None:
    source = make('year_policy = "newest"\nlookback_years = 3')
    source = replace(source, tables=tuple(replace(table, years=(2025, 2099)) for table in source.tables))
    publish("/roll/2024/Roll.zip")
    choice = choose(manager, source, 2026)
    assert choice.taken is None and [offer.year for offer in choice.considered] == [2026, 2025]
    assert not [line for line in asked(server) if "2024" in line or "2023" in line]


def test_newest_policy_asks_for_no_other_year_when_the_first_is_complete(
    server: Any, make: Make, publish: Any, manager: DownloadManager
) -> None:
    publish("/roll/2026/Roll.zip")
    choice = choose(manager, make('year_policy = "newest"'), 2026)
    assert choice.taken is not None and choice.taken.year == 2026
    assert not [line for line in asked(server) if "2025" in line]


def test_nothing_at_all_is_not_complete_even_when_nothing_is_required(make: Make, publish: Any, manager: DownloadManager) -> None:
    source = make(roll="required = false")
    assert survey(manager, source, 2026).lacks == "no archive"
    publish("/roll/2026/Hearings.zip")
    assert survey(manager, source, 2026).is_complete


def test_refusal_stops_for_a_required_archive_and_is_noted_for_another(make: Make, publish: Any, manager: DownloadManager) -> None:
    publish("/roll/2026/Roll.zip")
    publish("/roll/2026/Hearings.zip", status="401 Unauthorized")
    offer = survey(manager, make(), 2026)
    assert offer.is_complete and list(offer.fingerprints) == ["roll"]
    assert offer.archives["hearings"].status == "refused" and "401" in str(offer.archives["hearings"].reason)
    publish("/roll/2026/Roll.zip", status="401 Unauthorized")
    with pytest.raises(DownloadRefused, match="401"):
        survey(manager, make(), 2026)


def test_identity_of_an_archive_with_a_fallback_is_of_both_files(make: Make, publish: Any, manager: DownloadManager) -> None:
    source = make(roll='fallback = "{year}/Roll_Oct.zip"')
    publish("/roll/2026/Roll.zip", b"PK new")
    alone = survey(manager, source, 2026).fingerprints["roll"]
    assert alone == fingerprint(None, DAY, 6)
    publish("/roll/2026/Roll_Oct.zip", b"PK october")
    both = survey(manager, source, 2026).fingerprints["roll"]
    assert ArchiveIdentity.parse(both) == ArchiveIdentity(alone, None, fingerprint(None, DAY, 10))
    assert archive_files("roll", both) == {f"roll-{alone}", f"roll.fallback-{fingerprint(None, DAY, 10)}"}
    publish("/roll/2026/Roll_Oct.zip", b"PK october, again")
    assert survey(manager, source, 2026).fingerprints["roll"] != both


def test_archive_under_another_of_its_names_is_found_and_fetched(
    server: Any, make: Make, publish: Any, manager: DownloadManager, tmp_path: Path
) -> None:
    source = make(roll='aliases = ["{year}/Rolls.zip", "{year}/The_roll.zip"]')
    publish("/roll/2026/The_roll.zip", b"PK roll")
    offer = survey(manager, source, 2026)
    assert (offer.is_complete, offer.archives["roll"].url) == (True, server.url("/roll/2026/The_roll.zip"))
    assert asked(server)[:3] == ["HEAD /roll/2026/Roll.zip", "HEAD /roll/2026/Rolls.zip", "HEAD /roll/2026/The_roll.zip"]
    places, archive = Places(manager, source, 2026), source.archive("roll")
    assert places.require_url(archive) == server.url("/roll/2026/Roll.zip")
    assert places.other_urls(archive) == (server.url("/roll/2026/Rolls.zip"), server.url("/roll/2026/The_roll.zip"))
    publish("/roll/2026/Roll.zip", b"PK first")
    assert survey(manager, source, 2026).archives["roll"].url == server.url("/roll/2026/Roll.zip")


def test_declared_fingerprint_rule_is_used(make: Make, publish: Any, manager: DownloadManager) -> None:
    source = make('fingerprint = ["bytes"]')
    publish("/roll/2026/Roll.zip", ETag='"one"')
    before = survey(manager, source, 2026).fingerprints
    publish("/roll/2026/Roll.zip", ETag='"two"', Last_Modified="Sun, 27 Sep 2026 10:00:00 GMT")
    assert survey(manager, source, 2026).fingerprints == before
    publish("/roll/2026/Roll.zip", b"longer", ETag='"two"')
    assert survey(manager, source, 2026).fingerprints != before


LISTED = {
    "/list/get-tax-years": [{"taxyears": "2025"}, {"taxyears": "2026"}],
    "/list/get-certification-flag?t=2026": [{"taxyear": "2026", "certflg": "N", "lastUpdatedDate": UPDATED}],
    "/list/get-certification-flag?t=2025": [{"taxyear": 2025, "certflg": "Y", "lastUpdatedDate": "August 15, 2025"}],
}
SECTIONS = 'listing_sections = ["CAMA/Real Property", "CAMA/Hearings"]\n'


@pytest.fixture
def listing(server: Any, publish: Any) -> str:
    """HCAD's listing as it answers, with links to ``/files``; the ``[probe]`` text that declares it."""
    for path, rows in LISTED.items():
        publish(path, json.dumps(rows))
    for year in (2025, 2026):
        for section, file in (("Real+Property", "Roll.zip"), ("Hearings", "Hearings.zip")):
            rows = [{"taxYear": str(year), "category": "CAMA", "subCategory": section, "downloadLinkText": file, "description": "",
                     "downloadLink": f"/files/{year}/{file}", "filename": file}]  # fmt: skip
            publish(f"/list/get-property-downloads?t={year}&c=CAMA&s={section}", json.dumps(rows))
            publish(f"/files/{year}/{file}", b"PK")
    return f'listing = "{server.url("/list")}"\n{SECTIONS}'


def test_listing_says_where_the_archives_are_and_when_they_were_updated(
    server: Any, make: Make, listing: str, manager: DownloadManager
) -> None:
    source = make(listing)
    offer = survey(manager, source, 2026)
    assert offer.is_complete and offer.listed is not None and (offer.listed.is_certified, offer.listed.updated) == (False, UPDATED)
    assert {name: probe.url for name, probe in offer.archives.items()} == {
        "roll": server.url("/files/2026/Roll.zip"), "hearings": server.url("/files/2026/Hearings.zip"),
    }  # fmt: skip
    assert all(probe.listed == UPDATED for probe in offer.archives.values())
    assert not [line for line in asked(server) if "/roll/" in line]
    assert Places(manager, source, 2026).require_url(source.archive("roll")) == server.url("/files/2026/Roll.zip")


def test_listing_may_link_to_another_name_of_an_archive(server: Any, make: Make, listing: str, publish: Any, manager: DownloadManager) -> None:
    source = make(listing, roll='aliases = ["{year}/The_roll.zip"]')
    path = "/list/get-property-downloads?t=2026&c=CAMA&s=Real+Property"
    publish(path, json.dumps([{"taxYear": "2026", "category": "CAMA", "subCategory": "Real Property", "downloadLinkText": "",
            "description": "", "downloadLink": "/files/2026/The_roll.zip", "filename": "The_roll.zip"}]))  # fmt: skip
    publish("/files/2026/The_roll.zip")
    assert survey(manager, source, 2026).archives["roll"].url == server.url("/files/2026/The_roll.zip")
    places = Places(manager, source, 2026)
    assert places.require_url(source.archive("roll")) == server.url("/files/2026/The_roll.zip")
    assert places.other_urls(source.archive("roll")) == ()


@pytest.mark.parametrize(("complete", "year"), [("listed", 2026), ("dated", 2026), ("certified", 2025)])
def test_newest_year_is_the_newest_that_the_listing_calls_complete(
    make: Make, listing: str, manager: DownloadManager, complete: str, year: int
) -> None:
    choice = choose(manager, make(f'{listing}listing_complete = "{complete}"\nyear_policy = "newest"'), 2026)
    assert choice.taken is not None and choice.taken.year == year
    assert {probe.url.split("/")[4] for probe in choice.taken.archives.values()} == {str(year)}


def test_year_that_is_not_listed_is_not_asked_for_any_further(server: Any, make: Make, listing: str, manager: DownloadManager) -> None:
    offer = survey(manager, make(listing), 2027)
    assert (offer.lacks, offer.missing) == ("2027 is not in the listing", ("roll",))
    assert asked(server) == ["GET /list/get-tax-years"]


def test_archive_that_is_not_listed_is_missing_wherever_it_may_lie(
    make: Make, publish: Any, listing: str, manager: DownloadManager
) -> None:
    publish("/list/get-property-downloads?t=2026&c=CAMA&s=Real+Property", "[]")
    publish("/roll/2026/Roll.zip")
    source = make(listing)
    offer = survey(manager, source, 2026)
    assert (offer.lacks, offer.archives["roll"].reason) == ("no roll", "the listing does not link to it")
    with pytest.raises(ReleaseChanged, match="no roll of 2026 any more"):
        Places(manager, source, 2026).require_url(source.archive("roll"))


def test_rows_of_another_year_do_not_count(make: Make, publish: Any, listing: str, manager: DownloadManager) -> None:
    rows = [{"taxYear": "2025", "downloadLink": "/files/2025/Roll.zip"}]
    publish("/list/get-property-downloads?t=2026&c=CAMA&s=Real+Property", json.dumps(rows))
    assert survey(manager, make(listing), 2026).missing == ("roll",)


def test_date_of_the_listing_counts_where_it_is_declared(make: Make, publish: Any, listing: str, manager: DownloadManager) -> None:
    by_date, by_file = (make(f'{listing}fingerprint = ["listing"]'), make(listing))
    before = [survey(manager, source, 2026).fingerprints for source in (by_date, by_file)]
    rows = [{"taxyear": "2026", "certflg": "N", "lastUpdatedDate": "September 27, 2026"}]
    publish("/list/get-certification-flag?t=2026", json.dumps(rows))
    after = [survey(manager, source, 2026).fingerprints for source in (by_date, by_file)]
    assert after[0] != before[0] and after[1] == before[1]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("get-tax-years", "<!DOCTYPE html><html>Maintenance</html>", "no JSON.*Maintenance"),
        ("get-tax-years", "", "0 bytes that are no JSON"),
        ("get-tax-years", '{"taxyears": "2026"}', "says"),
        ("get-tax-years", '["2026"]', "a JSON list of rows"),
        ("get-tax-years", '[{"year": "2026"}]', "under 'taxyears'"),
        ("get-tax-years", '[{"taxyears": "MMXXVI"}]', "four digits"),
        ("get-tax-years", "[" * 100_000, "RecursionError"),
        ("get-tax-years", b"\xff\xfe[", "UnicodeDecodeError"),
        ("get-certification-flag?t=2026", '[{"taxyear": "2026", "certflg": "maybe"}]', "one flag, Y or N"),
        ("get-certification-flag?t=2026", '[{"taxyear": 2026, "certflg": true}]', "under 'certflg'"),
        ("get-property-downloads?t=2026&c=CAMA&s=Hearings", '[{"taxYear": "2026"}]', "under 'downloadLink'"),
        (
            "get-property-downloads?t=2026&c=CAMA&s=Hearings",
            '[{"taxYear": "2026", "downloadLink": "https://x.example/"}]',
            "address of a file",
        ),
        (
            "get-property-downloads?t=2026&c=CAMA&s=Hearings",
            '[{"taxYear": "2026", "downloadLink": "/elsewhere/roll.zip"}]',
            "one address a file",
        ),
    ],
)
def test_listing_that_cannot_be_read_is_an_error_that_shows_it(
    make: Make, publish: Any, listing: str, manager: DownloadManager, path: str, body: str | bytes, words: str
) -> None:
    publish(f"/list/{path}", body)
    with pytest.raises(ListingError, match=f"(?s){words}"):
        survey(manager, make(listing), 2026)


def test_year_without_a_flag_is_neither_dated_nor_certified(publish: Any, listing: str, server: Any, manager: DownloadManager) -> None:
    publish("/list/get-certification-flag?t=2026", "[]")
    state = Listing(server.url("/list"), manager.read_document).state_of(2026)
    assert state.lacks("listed") is None and state.lacks("dated") and state.lacks("certified")


def test_address_in_a_listing_is_judged_like_any_other(make: Make, publish: Any, listing: str, manager: DownloadManager) -> None:
    rows = [{"taxYear": "2026", "downloadLink": "http://169.254.169.254/Roll.zip"}]
    publish("/list/get-property-downloads?t=2026&c=CAMA&s=Real+Property", json.dumps(rows))
    with pytest.raises(AddressRefused, match=r"169\.254\.169\.254"):
        survey(manager, make(listing), 2026)


PIN = "ab" * 32
PINNED = f'sha256 = {{ 2026 = "{PIN}" }}'
OURS = fingerprint(None, DAY, 2)


@pytest.fixture
def down() -> str:
    """The base URL of a server that is not there: nothing listens on its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/roll"


@pytest.fixture
def mirrored(server: Any, make: Make, down: str) -> Make:
    """A source whose publisher is down and whose mirror is the server."""
    return lambda **texts: make(base_url=down, mirrors=(server.url("/mirror"),), **texts)


def known(**archives: KnownArchive) -> Callable[[int], Any]:
    return lambda year: {(name, False): archive for name, archive in archives.items()}


def test_mirror_answers_for_a_publisher_that_is_down_and_the_probe_says_so(
    server: Any, mirrored: Make, publish: Any, manager: DownloadManager, down: str
) -> None:
    told: list[tuple[str, Mapping[str, Any]]] = []
    publish("/mirror/2026/Roll.zip")
    publish("/mirror/2026/Hearings.zip")
    offer = survey(manager, mirrored(), 2026, on_event=lambda name, figures: told.append((name, figures)))
    assert offer.fingerprints == {"roll": OURS, "hearings": OURS}
    probe = offer.archives["roll"]
    assert (probe.url, probe.instead_of) == (server.url("/mirror/2026/Roll.zip"), f"{down}/2026/Roll.zip")
    assert "refused" in str(probe.reason) and "4 attempts" in str(probe.reason)
    assert [(name, figures["answered"]) for name, figures in told] == [
        ("probe.mirror", server.url(f"/mirror/2026/{file}.zip")) for file in ("Roll", "Hearings")
    ]


@pytest.mark.parametrize("status", ["500 Oops", "503 Busy"])
def test_mirror_is_asked_after_server_errors_in_all_attempts_and_never_after_an_answer(
    server: Any, make: Make, publish: Any, manager: DownloadManager, status: str
) -> None:
    source = make(mirrors=(server.url("/mirror"),))
    publish("/mirror/2026/Roll.zip")
    assert survey(manager, source, 2026).missing == ("roll",), "a 404 of the publisher is an answer"
    publish("/roll/2026/Roll.zip", status="403 Forbidden")
    with pytest.raises(DownloadRefused):
        survey(manager, source, 2026)
    assert not [line for line in asked(server) if "mirror" in line]
    publish("/roll/2026/Roll.zip", status=status)
    server.requests.clear()
    assert survey(manager, source, 2026).fingerprints == {"roll": OURS}
    assert asked(server)[:5] == ["HEAD /roll/2026/Roll.zip"] * 4 + ["HEAD /mirror/2026/Roll.zip"]


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Last_Modified": "Fri, 25 Sep 2026 10:00:00 GMT"}, "that of the release offered last is"),
        ({"Last_Modified": "Sun, 27 Sep 2026 10:00:00 GMT"}, "that of the release offered last is"),
        ({"ETag": '"the mirror\'s own"'}, "that of the release offered last is"),
        ({"Last_Modified": ""}, "that of the release offered last is"),
    ],
    ids=["older", "newer", "other tag", "none"],
)
def test_mirror_with_other_validators_than_those_known_is_no_substitute(
    mirrored: Make, publish: Any, manager: DownloadManager, headers: dict[str, str], words: str
) -> None:
    """Older, newer or copied at another time: without a pin nobody can tell, so it never passes as a new release."""
    publish("/mirror/2026/Roll.zip", **headers)
    since = KnownArchive(OURS, "cd" * 32, "2026-09-26T11:00:00+00:00", "cd" * 32)
    with pytest.raises(DownloadError, match=f"refused.*{words}.*the last good archive stays, of 2026-09-26T11:00:00"):
        survey(manager, mirrored(), 2026, known=known(roll=since))
    publish("/mirror/2026/Roll.zip")
    offer = survey(manager, mirrored(hearings="years = [2020, 2020]"), 2026, known=known(roll=since))
    assert offer.fingerprints == {"roll": OURS}


def test_pin_decides_for_a_mirror_whatever_validators_it_states(mirrored: Make, publish: Any, manager: DownloadManager) -> None:
    source = mirrored(roll=PINNED, hearings="years = [2020, 2020]")
    publish("/mirror/2026/Roll.zip", Last_Modified="")
    assert survey(manager, source, 2026, known=known(roll=KnownArchive(OURS, "cd" * 32))).fingerprints == {"roll": pinned(PIN)}
    # The very bytes are here already: it is the release that is known, and nothing is fetched.
    assert survey(manager, source, 2026, known=known(roll=KnownArchive(OURS, PIN))).fingerprints == {"roll": OURS}


def test_404_of_a_mirror_is_no_word_of_the_publisher(mirrored: Make, publish: Any, manager: DownloadManager) -> None:
    with pytest.raises(DownloadError, match="404, which says nothing of the publisher"):
        survey(manager, mirrored(), 2026)
    publish("/mirror/2026/Roll.zip")
    with pytest.raises(DownloadError, match=r"Hearings.zip answered 404"):
        survey(manager, mirrored(), 2026, known=known(roll=KnownArchive(OURS), hearings=KnownArchive(OURS)))
    # It was not there when the publisher was asked last, either.
    assert survey(manager, mirrored(), 2026, known=known(roll=KnownArchive(OURS))).fingerprints == {"roll": OURS}
    publish("/mirror/2026/Hearings.zip")
    with pytest.raises(DownloadError, match="has it, and the release offered last does not"):
        survey(manager, mirrored(), 2026, known=known(roll=KnownArchive(OURS)))
