"""The probe, the download and the confirmation as tasks, against a server that is changed between them."""

import datetime as dt
import hashlib
import http.server
import io
import logging
import re
import threading
import time
import zipfile
from dataclasses import asdict

import luigi
import pytest
from fixtures.tiny_county import write_county
from luigi.rpc import RPCError

from pipeline.catalog.recipe import release_recipe
from pipeline.database.engine import transaction
from pipeline.database.runs import FailedAttempt, start_run
from pipeline.database.server import open_database
from pipeline.download.progress import read_progress
from pipeline.errors import ChecksumMismatch, ConfigurationError, DownloadError, NotAnArchive, ReleaseChanged, ShapeError
from pipeline.extract.wanted import cuts_of
from pipeline.handoff import write_json
from pipeline.load.shape import ensure_live
from pipeline.outcome import outcome_of
from pipeline.releases import ArchiveIdentity, Release
from pipeline.settings import process_settings, process_sources
from pipeline.targets import Refusal

DAY = "Sat, 26 Sep 2026 10:00:00 GMT"


def packed(text, size=0):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as zipped:
        # ZipInfo has a date of its own, always the same: equal members are equal bytes.
        zipped.writestr(zipfile.ZipInfo("owner.txt"), f"acct\r\n{text}\r\n")
        zipped.writestr(zipfile.ZipInfo("ballast"), bytes(size))
    return out.getvalue()


class Server:
    """Bodies by path, each with an ETag that a test may keep while it changes the body."""

    def __init__(self):
        self.bodies, self.asked, self.is_down = {}, [], False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.answer(with_body=False)

            def do_GET(self):
                self.answer(with_body=True)

            def answer(self, *, with_body):
                outer.asked.append(f"{self.command} {self.path}")
                body, etag = outer.bodies.get(self.path, (None, None))
                if outer.is_down:
                    body, etag = b"down", None
                self.send_response(503 if outer.is_down else 404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                if etag:
                    self.send_header("ETag", etag)
                self.end_headers()
                if with_body and body:
                    self.wfile.write(body)

            def log_message(self, *_):
                return

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def put(self, name, body, etag=None):
        self.bodies[f"/2025/{name}.zip"] = (body, etag or f'"{hashlib.sha256(body).hexdigest()[:8]}"')

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server():
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def tasks(tmp_path, server, database_url, monkeypatch):
    """The tasks module, with a state folder, a database and schema files of the test's own; `tasks.declare` writes the latter."""
    import pipeline.tasks as module

    config = luigi.configuration.get_config()
    folder = tmp_path / "schemas" / "tiny"
    before = {("catalog", "path"): config.get("catalog", "path", "")}
    changed = {}

    def declare(roll="", mirrors=(), **download):
        write_county(folder, server.url, roll=roll, mirrors=mirrors)
        for key, value in download.items():
            changed.setdefault(("download", key), config.get("download", key, ""))
            config.set("download", key, value)
        process_settings.cache_clear()
        process_sources.cache_clear()

    config.set("catalog", "path", str(tmp_path / "schemas"))
    monkeypatch.setenv("HCAD_PIPELINE_STATE", str(tmp_path / "var"))
    monkeypatch.setenv("DATABASE_URL", database_url)
    for name in ("HCAD_PIPELINE_PROFILE", "HCAD_PIPELINE_MIRROR", "HCAD_PIPELINE_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "declare", declare, raising=False)
    declare()
    yield module
    for (section, key), value in (before | changed).items():
        config.set(section, key, value)
    process_settings.cache_clear()
    process_sources.cache_clear()


def probe(tasks, second, **more):
    """Take a probe, and give the release that it saw."""
    task = tasks.ProbeRelease(source="tiny", year=2025, as_of=dt.datetime(2026, 1, 1, 0, 0, second), **more)
    task.run()
    document = task.output().read()
    return Release.read(process_settings().state, "tiny", 2025, document["release"]) if document["release"] else document


def downloads(tasks, release):
    from pipeline.tasks.download import downloads_of

    return {download.archive: download for download in downloads_of(release)}


def confirm(tasks, release):
    return tasks.ConfirmRelease(source="tiny", year=2025, release=release.release)


def test_release_that_changes_between_two_downloads_is_not_confirmed(tasks, server):
    server.put("Roll", packed("1"))
    server.put("Hearings", packed("1"))
    monday = probe(tasks, 1)
    found = downloads(tasks, monday)
    found["roll"].run()
    # The publisher replaces what was fetched already, then the second download goes on with what was probed.
    server.put("Roll", packed("2"))
    found["hearings"].run()
    with pytest.raises(ReleaseChanged, match=f"roll is e-.* and was {monday.fingerprints['roll']}"):
        confirm(tasks, monday).run()
    assert not confirm(tasks, monday).complete()
    tuesday = probe(tasks, 2)
    assert tuesday.release != monday.release
    server.asked.clear()
    for download in downloads(tasks, tuesday).values():
        if not download.complete():
            download.run()
    assert [line for line in server.asked if line.startswith("GET")] == ["GET /2025/Roll.zip"]
    confirm(tasks, tuesday).run()
    assert confirm(tasks, tuesday).complete()


@pytest.mark.parametrize("event", ["comes", "goes", "required goes"])
def test_archive_that_comes_or_goes_meanwhile_changes_the_release_too(tasks, server, event):
    server.put("Roll", packed("1"))
    if event == "goes":
        server.put("Hearings", packed("1"))
    release = probe(tasks, 1)
    for download in downloads(tasks, release).values():
        download.run()
    if event == "comes":
        server.put("Hearings", packed("1"))
    else:
        del server.bodies["/2025/Hearings.zip" if event == "goes" else "/2025/Roll.zip"]
    with pytest.raises(ReleaseChanged, match="not there" if event == "comes" else "gone"):
        confirm(tasks, release).run()


def test_confirmation_speaks_for_the_downloads_that_were_made_and_for_no_others(tasks, server):
    server.put("Roll", packed("1"))
    release = probe(tasks, 1)
    (download,) = downloads(tasks, release).values()
    download.run()
    confirm(tasks, release).run()
    document = confirm(tasks, release).output().read()
    assert document["archives"][download.output().path.name]["sha256"] == hashlib.sha256(packed("1")).hexdigest()
    download.output().receipt.unlink()
    assert not confirm(tasks, release).complete()
    time.sleep(1.1)  # A receipt says when, to the second.
    download.run()
    assert not confirm(tasks, release).complete()


def alter(engine, statement):
    with transaction(engine) as cursor:
        cursor.execute(statement)


@pytest.mark.fault(65)
def test_plain_luigi_looks_at_database_and_tables_before_it_asks_the_source_for_anything(tasks, server, monkeypatch, caplog):
    server.put("Roll", packed("1"))
    engine = tasks.base.engine()
    ensure_live(engine, process_sources()["tiny"].table("owner"), 2025)
    (sync,) = tasks.SyncAll(as_of=dt.datetime(2026, 1, 1), only="tiny").requires()
    alter(engine, "alter table tiny.owner alter column acct type varchar(9)")
    with pytest.raises(ShapeError, match="alter column acct type text"):
        sync.requires().run()
    assert server.asked == []
    # In a run of hcad-pipeline it has been looked at, once for all sources.
    with monkeypatch.context() as run:
        run.setenv("HCAD_PIPELINE_RUN_ID", "1")
        process_settings.cache_clear()
        assert probe(tasks, 1)
    process_settings.cache_clear()
    server.asked.clear()
    alter(engine, "alter table tiny.owner alter column acct type text; create view tiny.mine as select acct from tiny.owner")
    other = "insert into etl.import (source, tax_year, release, recipe, state, profile) values ('tiny', 2024, 'r', 'r', 'published', 'other')"
    alter(engine, other)
    with pytest.raises(ConfigurationError, match="of profile other"):
        sync.requires().run()
    assert server.asked == []
    alter(engine, "delete from etl.import")
    caplog.set_level(logging.INFO)
    sync.requires().run()
    assert "tiny.owner has a view of your own, tiny.mine: it is kept" in caplog.text


@pytest.mark.fault(18)
def test_other_bytes_under_the_same_validators_become_a_release_of_their_own_by_force(tasks, server):
    server.put("Roll", packed("1"), '"same"')
    before = probe(tasks, 1)
    downloads(tasks, before)["roll"].run()
    server.put("Roll", packed("2"), '"same"')
    assert probe(tasks, 2).release == before.release, "no validator tells"
    again = probe(tasks, 3, force=True)
    assert again.release == before.release
    download = downloads(tasks, again)["roll"]
    assert not download.complete(), "its receipt counts no more"
    with pytest.raises(ReleaseChanged, match="a release of their own"):
        download.run()
    after = probe(tasks, 4)
    sha256 = hashlib.sha256(packed("2")).hexdigest()
    assert after.release != before.release
    assert ArchiveIdentity.parse(after.fingerprints["roll"]) == ArchiveIdentity(before.fingerprints["roll"], sha256[:8])
    server.asked.clear()
    found = downloads(tasks, after)["roll"]
    assert found.complete() and found.output().read().sha256 == sha256, "the bytes that were compared are the ones that are used"
    assert not server.asked
    confirm(tasks, after).run()
    # Should it ever be fetched again, it must be these very bytes.
    found.output().receipt.unlink()
    server.put("Roll", packed("3"), '"same"')
    with pytest.raises(ReleaseChanged):
        found.run()


def test_force_keeps_the_identity_when_the_bytes_are_the_same(tasks, server):
    server.put("Roll", packed("1"))
    before = probe(tasks, 1)
    download = downloads(tasks, before)["roll"]
    download.run()
    server.asked.clear()
    assert probe(tasks, 2, force=True).release == before.release
    assert not download.complete()
    download.run()
    assert download.complete() and "GET /2025/Roll.zip" in server.asked
    assert [path.name for path in download.output().path.parent.glob("*.distrusted.json")] == []


def test_archive_that_was_bad_and_is_good_by_force_is_a_release_of_its_own(tasks, server):
    server.put("Roll", packed("1"))
    server.put("Hearings", b"<html>Maintenance</html>" * 50, '"same"')
    before = probe(tasks, 1)
    download = downloads(tasks, before)["hearings"]
    download.run()
    assert download.complete() and download.output().refusal().code == "E_NOT_ARCHIVE"
    server.put("Hearings", packed("1"), '"same"')
    probe(tasks, 2, force=True)
    with pytest.raises(ReleaseChanged, match="a bad archive"):
        download.run()
    assert probe(tasks, 3).release != before.release


@pytest.mark.fault(15)
@pytest.mark.parametrize("name", ["roll", "hearings"])
def test_page_in_place_of_an_archive_that_is_fetched_by_force_leaves_the_good_one_in_use(tasks, server, name):
    tasks.declare(backoff_s="0.01")
    for archive in ("Roll", "Hearings"):
        server.put(archive, packed("1"), '"same"')
    before = probe(tasks, 1)
    download = downloads(tasks, before)[name]
    download.run()
    receipt = download.output().read()
    server.put(name.title(), b"<html>Maintenance</html>" * 50, '"same"')
    probe(tasks, 2, force=True)
    assert not download.complete()
    with pytest.raises(NotAnArchive):
        download.run()
    assert download.complete() and download.output().read() == receipt and download.output().path.read_bytes() == packed("1")
    assert sorted(path.name for path in download.output().path.parent.iterdir()) == [receipt.file, f"{receipt.file}.receipt.json"]
    assert probe(tasks, 3, force=True).release == before.release
    server.is_down = True
    with pytest.raises(DownloadError, match=f"503.*the last good archive stays, of {receipt.fetched_at.replace('+', '.')}"):
        download.run()
    server.is_down = False
    # One that rotted meanwhile is not good.
    download.output().path.write_bytes(packed("2"))
    probe(tasks, 4, force=True)
    if name == "roll":
        with pytest.raises(NotAnArchive):
            download.run()
        assert not download.complete()
    else:
        download.run()
        assert download.output().refusal().code == "E_NOT_ARCHIVE"


def publish_without(tasks, release, archive, refusal, recipe="r"):
    """Let the ledger and the notes say that the release is current without one of its archives."""
    with transaction(engine()) as cursor:
        cursor.execute("update etl.import set state = 'superseded' where state = 'published'")
        cursor.execute(
            """insert into etl.import (source, tax_year, release, recipe, profile, state, published_at)
               values ('tiny', 2025, %s, %s, 'production', 'published', now())""",
            [release.release, recipe],
        )
    if archive in release.fingerprints:
        cut = cuts_of(process_sources()["tiny"], 2025, process_settings().part_bytes)[archive]
        write_json(process_settings().state / "members/tiny/2025" / f"{archive}-{release.fingerprints[archive]}-{cut}.bad.json", refusal)


def engine():
    return open_database(process_settings().database_url, process_settings().state)


@pytest.mark.parametrize(
    ("family", "code", "is_new", "expected"),
    [
        (None, None, False, 0), ("DownloadArchive", "E_RELEASE_CHANGED", False, 30), ("DownloadArchive", "E_NOT_ARCHIVE", False, 31),
        ("SyncSource", "E_DISK", False, 30), ("PublishRelease", "E_DATABASE", False, 0), ("DownloadArchive", "E_DOWNLOAD", True, 0),
    ],
)  # fmt: skip
def test_current_release_is_a_success_unless_it_could_not_be_looked_at_or_fetched_again(tasks, server, family, code, is_new, expected):
    server.put("Roll", packed("1"))
    release, settings = probe(tasks, 1), process_settings()
    publish_without(tasks, release, "hearings", Refusal("E_ARCHIVE", "damaged"), recipe=release_recipe(process_sources()["tiny"], 2025))
    as_of, database = dt.datetime(2026, 1, 1, 0, 0, 1), engine()
    run_id = start_run(database, "run", "production", as_of)
    with transaction(database) as cursor:
        cursor.execute("update etl.import set published_at = now() + %s * interval '1 hour'", [1 if is_new else -1])
    failures = [FailedAttempt(family, {"source": "tiny", "year": "2025"}, code, expected or 30, f"{code}: why")] if family else []
    found = outcome_of(database, settings, "tiny", 2025, as_of, run_id, failures)
    assert found.exit_code == expected
    assert found.state == ("published" if is_new else {0: "unchanged", 30: "failed", 31: "refused"}[expected])
    assert (found.message == f"{code}: why") == bool(expected)


def test_year_that_is_not_published_is_told_by_its_error_with_what_is_missing(tasks, server):
    probe(tasks, 1)
    as_of = dt.datetime(2026, 1, 1, 0, 0, 1)
    found = outcome_of(engine(), process_settings(), "tiny", 2025, as_of, start_run(engine(), "run", "production", as_of), [])
    assert (found.state, found.exit_code) == ("not_published", 20)
    assert found.message.startswith("E_NOT_PUBLISHED: tiny has not published 2025 yet: no roll")


def test_each_force_finds_out_anew_what_was_bad_also_where_the_same_bytes_came_before(tasks, server):
    server.put("Roll", packed("1"))
    server.put("Hearings", packed("1"))
    seen = [probe(tasks, 1)]
    for second in (2, 3, 4):
        for download in downloads(tasks, seen[-1]).values():
            download.run()
        publish_without(tasks, seen[-1], "hearings", Refusal("E_ARCHIVE", "damaged"))
        seen.append(probe(tasks, second, force=True))
    assert len({release.release for release in seen}) == 4 and len({release.fingerprints["roll"] for release in seen}) == 1
    sha256 = hashlib.sha256(packed("1")).hexdigest()
    editions = [ArchiveIdentity.parse(release.fingerprints["hearings"]).edition for release in seen]
    assert editions == [None, sha256[:8], sha256[:9], sha256[:10]]
    server.asked.clear()
    downloads(tasks, seen[-1])["hearings"].run()
    assert "GET /2025/Hearings.zip" in server.asked, "by force means from the server"
    downloads(tasks, seen[-1])["roll"].run()
    confirm(tasks, seen[-1]).run()


def test_archive_beyond_a_limit_is_looked_at_again_once_the_limit_is_another_and_is_not_downloaded_again(tasks, server):
    server.put("Roll", packed("1"))
    server.put("Hearings", packed("1"))
    before = probe(tasks, 1)
    for download in downloads(tasks, before).values():
        download.run()
    limits = asdict(process_sources()["tiny"].limits)
    publish_without(tasks, before, "hearings", Refusal("E_ARCHIVE_LIMIT", "too many", limits))
    assert probe(tasks, 2).release == before.release, "nothing is another"
    publish_without(tasks, before, "hearings", Refusal("E_ARCHIVE", "damaged"))
    assert probe(tasks, 3).release == before.release, "no limit was the reason"
    publish_without(tasks, before, "hearings", Refusal("E_ARCHIVE_LIMIT", "too many", limits | {"max_members": 1}))
    after = probe(tasks, 4)
    assert after.release != before.release and after.fingerprints["roll"] == before.fingerprints["roll"]
    server.asked.clear()
    assert all(download.complete() for download in downloads(tasks, after).values()) and not server.asked
    confirm(tasks, after).run()
    assert probe(tasks, 5).release == after.release


@pytest.mark.fault(73)
def test_confirmation_that_is_damaged_is_asked_for_again(tasks, server):
    server.put("Roll", packed("1"))
    release = probe(tasks, 1)
    downloads(tasks, release)["roll"].run()
    confirm(tasks, release).run()
    path = confirm(tasks, release).output().path
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        assert not confirm(tasks, release).complete()
    confirm(tasks, release).run()
    assert confirm(tasks, release).complete()


def test_bad_required_archive_without_a_fallback_is_an_error_each_time(tasks, server):
    server.put("Roll", b"<html>Maintenance</html>" * 50)
    download = downloads(tasks, probe(tasks, 1))["roll"]
    for _ in range(2):
        with pytest.raises(NotAnArchive):
            download.run()
        assert not download.complete()


def test_pinned_bytes_are_the_only_ones_that_are_taken(tasks, server):
    body = packed("1")
    tasks.declare(roll=f'sha256 = {{ 2025 = "{hashlib.sha256(body).hexdigest()}" }}')
    server.put("Roll", packed("2"))
    with pytest.raises(ChecksumMismatch):
        downloads(tasks, probe(tasks, 1))["roll"].run()
    server.put("Roll", body)
    downloads(tasks, probe(tasks, 2))["roll"].run()


def test_mirror_confirms_and_brings_the_release_that_is_known_and_no_other(tasks, server):
    mirror = Server()
    try:
        tasks.declare(mirrors=(mirror.url,), backoff_s="0.01")
        for place in (server, mirror):
            place.put("Roll", packed("1"))
        monday = probe(tasks, 1)
        # The publisher goes down between the probe and the download, and stays down.
        server.is_down = True
        downloads(tasks, monday)["roll"].run()
        confirm(tasks, monday).run()
        assert confirm(tasks, monday).complete()
        assert probe(tasks, 2).release == monday.release
        noted = tasks.ProbeRelease(source="tiny", year=2025, as_of=dt.datetime(2026, 1, 1, 0, 0, 2)).output().read()["archives"]["roll"]
        assert noted["url"].startswith(mirror.url) and noted["instead_of"].startswith(server.url) and "503" in noted["reason"]
        mirror.put("Roll", packed("0"))
        with pytest.raises(DownloadError, match=r"release offered last.*the last good archive stays, of 20"):
            probe(tasks, 3)
        with pytest.raises(DownloadError):
            confirm(tasks, monday).run()
        mirror.is_down = True
        with pytest.raises(DownloadError, match=r"503.*; then .*503.*the last good archive stays, of 20"):
            probe(tasks, 4)
    finally:
        mirror.stop()


def test_pinned_archive_is_had_from_a_mirror_whose_validators_say_nothing(tasks, server):
    mirror, body = Server(), packed("1")
    try:
        tasks.declare(roll=f'sha256 = {{ 2025 = "{hashlib.sha256(body).hexdigest()}" }}', mirrors=(mirror.url,), backoff_s="0.01")
        server.is_down = True
        mirror.put("Roll", packed("2"))
        with pytest.raises(DownloadError, match=r"Hearings.*404"):
            probe(tasks, 1)
        mirror.put("Hearings", packed("1"))
        release = probe(tasks, 2)
        assert release.fingerprints["roll"] == f"s-{hashlib.sha256(body).hexdigest()[:12]}"
        with pytest.raises(DownloadError, match=hashlib.sha256(packed("2")).hexdigest()):
            downloads(tasks, release)["roll"].run()
        mirror.put("Roll", body)
        for download in downloads(tasks, release).values():
            download.run()
        confirm(tasks, release).run()
        # The publisher is back, with its own validators: another release, of the same bytes.
        server.is_down = False
        server.put("Roll", body)
        server.put("Hearings", packed("1"))
        assert probe(tasks, 3).fingerprints["roll"].startswith("e-")
        # And down again: what is here has the pinned bytes.
        downloads(tasks, probe(tasks, 4))["roll"].run()
        server.is_down = True
        assert probe(tasks, 5).release == probe(tasks, 4).release
        # A pin that was changed meanwhile does not vouch for what was probed by another one.
        tasks.declare(mirrors=(mirror.url,), backoff_s="0.01")
        with pytest.raises(ReleaseChanged, match="the pin is gone"):
            downloads(tasks, release)["roll"].run()
    finally:
        mirror.stop()


def test_configured_bandwidth_is_kept_and_the_log_tells_how_far_it_is(tasks, server, caplog, monkeypatch):
    tasks.declare(bandwidth="1MB")
    monkeypatch.setattr("pipeline.tasks.progress.LOG_EVERY_S", 1.0)
    body = packed("1", 3_000_000)
    server.put("Roll", body)
    download = downloads(tasks, probe(tasks, 1))["roll"]
    told = []
    download.set_status_message = download.set_progress_percentage = told.append
    caplog.set_level(logging.INFO, logger="pipeline")
    started = time.monotonic()
    download.run()
    seconds = time.monotonic() - started
    # How near it comes to it is measured in tests/unit/download.
    assert len(body) / 1.1e6 <= seconds <= 60
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("download.progress")]
    assert lines and all("rate_bytes_s=" in line and "eta_s=" in line for line in lines)
    assert "MB" in told[0]
    assert len(told) - 1 <= seconds, "at most one call a second"
    assert [type(text) for text in told[:2]] == [str, int]


def test_luigid_that_does_not_listen_is_left_alone(tasks, server, monkeypatch):
    tasks.declare(bandwidth="1MB")
    server.put("Roll", packed("1", 3_000_000))
    download = downloads(tasks, probe(tasks, 1))["roll"]
    calls = []

    def refuse(_):
        calls.append(1)
        raise RPCError("gone")

    download.set_status_message = download.set_progress_percentage = refuse
    download.run()
    assert download.complete() and len(calls) == 1


def test_progress_is_written_for_the_runs_terminal_while_it_looks(tasks, server, monkeypatch):
    monkeypatch.setenv("HCAD_PIPELINE_RUN_ID", "7")
    tasks.declare(bandwidth="1MB")
    server.put("Roll", packed("1", 4_000_000))
    download = downloads(tasks, probe(tasks, 1))["roll"]
    folder = process_settings().state / "progress" / "run-7"
    folder.mkdir(parents=True)
    thread = threading.Thread(target=download.run)
    thread.start()
    found = []
    while thread.is_alive():
        found += read_progress(folder).values()
        time.sleep(0.1)
    thread.join()
    rates = [progress.rate_bytes_s for progress in found if progress.rate_bytes_s is not None]
    assert rates and all(0 < rate < 2_000_000 for rate in rates) and found[-1].total > 4_000_000
    assert list(folder.iterdir()) == []


def test_progress_that_the_disk_does_not_take_fails_no_download_and_is_counted(tasks, server, monkeypatch, caplog):
    monkeypatch.setenv("HCAD_PIPELINE_RUN_ID", "7")
    tasks.declare(bandwidth="1MB")
    server.put("Roll", packed("1", 1_500_000))
    download = downloads(tasks, probe(tasks, 1))["roll"]
    (process_settings().state / "progress" / "run-7" / f"{download.output().path.name}.json").mkdir(parents=True)
    caplog.set_level(logging.INFO, logger="pipeline")
    download.run()
    assert download.complete()
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("download.not_shown")]
    # Once a second, and when it is over.
    assert int(re.search(r"times=(\d+)", line)[1]) >= 2 and "cannot be written" in line


def test_settings_reach_the_download_stage(tasks, server):
    tasks.declare(max_bytes="100")
    server.put("Roll", packed("1"))
    with pytest.raises(Exception, match="at most 100 bytes"):
        downloads(tasks, probe(tasks, 1))["roll"].run()
    assert process_settings().patience.max_bytes == 100


def test_run_computes_a_table_of_roll_and_publishes_it_in_the_same_commit(tasks, server, tmp_path):
    """Owners have no more than a number here; hearings are not offered, and are read as they are: without rows."""
    shared, own = tmp_path / "schemas" / "roll", tmp_path / "schemas" / "tiny" / "roll"
    for folder in (shared, own):
        folder.mkdir()
    (shared / "property.toml").write_text(
        '[table]\nname = "property"\nkey = ["acct"]\n[columns]\nacct = { type = "text", required = true }\n'
        'protests = { type = "integer" }\n'
    )
    (own / "property.toml").write_text('[inputs]\nowner = { account = "acct" }\nprotest = { account = "acct", required = false }\n')
    query = "select o.acct, (select count(*) from {protest} p where p.acct = o.acct) as protests from {owner} o"
    (own / "property.sql").write_text(query)
    seen = []
    for second, text in enumerate(("1\r\n2", "1\r\n3")):
        tasks.declare()
        server.put("Roll", packed(text))
        sync = tasks.SyncSource(source="tiny", year=2025, as_of=dt.datetime(2026, 1, 1, 0, 0, second))
        assert luigi.build([sync], local_scheduler=True, workers=1, log_level="CRITICAL", no_lock=True)
        assert sync.complete()
        with transaction(engine()) as cursor:
            cursor.execute("select source, tax_year, acct, protests from roll.property order by acct")
            rows = cursor.fetchall()
            cursor.execute("select inserted, updated, deleted from etl.import_table where table_name = 'roll_property' order by import_id")
            seen.append((rows, cursor.fetchall()))
    assert seen == [
        ([("tiny", 2025, "1", 0), ("tiny", 2025, "2", 0)], [(2, 0, 0)]),
        ([("tiny", 2025, "1", 0), ("tiny", 2025, "3", 0)], [(2, 0, 0), (1, 0, 1)]),
    ]
