"""Every stage is of use to a plain Python program: no luigi, no runner, no configuration file.

Each program below runs in an interpreter of its own, which started with this file as its script, and ends by making sure that
luigi was never imported.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BUNDLE = REPOSITORY / "tests" / "fixtures" / "sample"
YEAR = 2025
ROWS = {"real_acct": 50, "real_mnrl": 7_262, "real_neighborhood_code": 12_020}

# --------------------------------------------------------------------------------------------------- the programs


def the_whole_chain(database_url: str, folder: Path) -> None:
    """Download, extract, transform and load a release by hand; again: nothing is written; then take it back."""
    from pipeline.catalog import load_catalog, release_recipe
    from pipeline.catalog.recipe import layout_recipe
    from pipeline.database.engine import make_engine
    from pipeline.database.ledger import ImportKey
    from pipeline.database.migrate import migrate
    from pipeline.download import DownloadManager
    from pipeline.extract import ExtractManager, WantedMember
    from pipeline.extract.lookup import raw_lines
    from pipeline.load.checkpoints import Origin
    from pipeline.load.manager import LoadManager
    from pipeline.transform import DataTransformer, choose_layout, read_header

    source = load_catalog(profile="sample")["hcad"]
    tables = source.tables_for(YEAR)
    (archive,) = source.archives_for(YEAR)

    downloads = DownloadManager(allow_addresses=source.allow_addresses)
    probe = downloads.probe(source.url(archive, YEAR))
    receipt = downloads.download_file(source.url(archive, YEAR), folder / "archive.zip", fingerprint=probe.fingerprint)
    assert downloads.verify_checksum(folder / "archive.zip", receipt.sha256)

    extracts = ExtractManager(part_bytes=200_000, limits=source.limits)
    assert extracts.verify_archive(folder / "archive.zip").members >= len(tables)
    wanted = [WantedMember(table.member, table.member_aliases, table.required) for table in tables]
    members = extracts.extract_archive(folder / "archive.zip", folder / "members", members=wanted).members

    engine = make_engine(database_url)
    migrate(engine)
    loads = LoadManager(engine, profile="sample")
    key = ImportKey(source.name, YEAR, receipt.fingerprint, release_recipe(source, YEAR))
    for table in tables:
        member = next(member for member in members if member.name == table.member)
        path = folder / "members" / member.file
        reading = read_header(table, choose_layout(table, member, year=YEAR, version=None), member)
        origin = Origin.of(member, layout_recipe(table, reading.layout))
        opened = loads.open_import(key, table)
        transformer = DataTransformer(table)
        reports = []
        for part in member.parts:
            parts = folder / "parts" / table.name
            parts.mkdir(parents=True, exist_ok=True)
            reports.append(transformer.transform_part(path, member, part, reading, parts / str(part.number)))
            staged = loads.stage_part(key, table, parts / str(part.number), origin=origin)
            assert staged == reports[-1]
            assert loads.stage_part(key, table, parts / str(part.number), origin=origin) is None
        assert loads.resume_from_checkpoint(opened.import_id).parts[table.name] == tuple(range(len(member.parts)))
        loads.settle_table(
            key, table, origin=origin, parts=len(member.parts), records=sum(report.read for report in reports),
            raw_lines=lambda numbers, path=path, member=member, reading=reading: raw_lines(path, member, numbers, reading.layout.encoding),
        )  # fmt: skip
    assert len(list((folder / "parts" / "real_neighborhood_code").iterdir())) > 1, "the parts are too large to show anything"
    loads.check_release(key, source)
    published = loads.publish(key, source)
    assert {name: written.inserted for name, written in published.items()} == ROWS
    assert loads.publish(key, source) == {}, "what is current is not published twice"
    counts = {table.name: loads.content_hash(table, YEAR)[0] for table in tables}
    assert counts == ROWS
    undone = loads.rollback_import(opened.import_id)
    assert {name: written.deleted for name, written in undone.items()} == ROWS
    assert {loads.content_hash(table, YEAR)[0] for table in tables} == {0}


def upsert_of_any_kind(database_url: str, folder: Path) -> None:
    """Mappings, a DataFrame and Arrow into a table given by name, by SQLAlchemy table and by mapped class."""
    import pandas as pd
    import pyarrow as pa
    import sqlalchemy as sa
    from sqlalchemy.orm import DeclarativeBase

    from pipeline.database.engine import make_engine
    from pipeline.load.manager import LoadManager

    class Base(DeclarativeBase):
        pass

    class Parcel(Base):
        __tablename__ = "parcel"
        acct = sa.Column(sa.Text, primary_key=True)
        owner = sa.Column(sa.Text)
        acres = sa.Column(sa.Double)

    engine = make_engine(database_url)
    Base.metadata.create_all(engine)
    loads = LoadManager(engine)

    def figures(records: object, model_class: object, batch_size: int = 5000) -> tuple[int, int, int, int]:
        done = loads.bulk_upsert(records, model_class, batch_size)
        return done.inserted, done.updated, done.unchanged, done.repeated

    mappings = [{"acct": f"{number:013d}", "owner": "Smith\tand \\N", "acres": None} for number in range(12)]
    assert figures(mappings, "public.parcel", 5) == (12, 0, 0, 0)
    assert figures(iter(mappings), Parcel.__table__) == (0, 0, 12, 0)
    frame = pd.DataFrame({"acct": ["0000000000000", "0000000000001", "0000000000099"], "owner": ["Smith\tand \\N", "Jones", "New"]})
    assert figures(frame.assign(acres=[None, 1.5, 2.5]), Parcel) == (1, 1, 1, 0)
    arrow = pa.table({"acct": ["0000000000099", "0000000000099"], "acres": [7.0, 8.0]})
    assert figures(arrow, Parcel) == (0, 1, 0, 1)
    with engine.connect() as connection:
        rows = {row.acct: (row.owner, row.acres) for row in connection.execute(sa.select(Parcel.__table__))}
    assert len(rows) == 13
    assert rows["0000000000000"] == ("Smith\tand \\N", None)
    assert rows["0000000000001"] == ("Jones", 1.5)
    assert rows["0000000000099"] == ("New", 8.0)


def progress_of_its_own(database_url: str, folder: Path) -> None:
    """Keep a running count beside one's own rows, in one transaction with them; go on after a failure where it says."""
    from pipeline.database.engine import make_engine, transaction
    from pipeline.database.migrate import migrate
    from pipeline.load.manager import LoadManager

    engine = make_engine(database_url)
    migrate(engine)
    loads = LoadManager(engine)
    records = [{"acct": f"{number:013d}"} for number in range(1000)]
    own = 7
    with transaction(engine) as cursor:
        cursor.execute("create table own (acct text primary key)")

    def load_from(start: int, fail_at: int | None) -> None:
        for at in range(start, len(records), 100):
            with transaction(engine) as cursor:
                loads.bulk_upsert(records[at : at + 100], "own", cursor=cursor)
                loads.checkpoint_progress(own, at + 100, cursor=cursor)
                if at == fail_at:
                    raise InterruptedError

    assert loads.resume_from_checkpoint(own).records_processed == 0
    with contextlib.suppress(InterruptedError):
        load_from(0, fail_at=400)
    resumed = loads.resume_from_checkpoint(own).records_processed
    with transaction(engine) as cursor:
        cursor.execute("select count(*) from own")
        assert cursor.fetchone() == (resumed,) == (400,), "the count and the rows are committed together"
    load_from(resumed, fail_at=None)
    assert loads.resume_from_checkpoint(own).records_processed == len(records)
    with transaction(engine) as cursor:
        cursor.execute("select count(*) from own")
        assert cursor.fetchone() == (len(records),)


PROGRAMS = {program.__name__: program for program in (the_whole_chain, upsert_of_any_kind, progress_of_its_own)}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
    assert not [name for name in sys.modules if name.split(".")[0] == "luigi"], "luigi was imported on the way"
    print("done")
    sys.exit(0)

# ------------------------------------------------------------------------------------------------------ the tests

import pytest  # noqa: E402  # the programs above do without it


@pytest.fixture
def sample_server():
    """The sample bundle, served by a thread of this process; its URL without a path."""
    sys.path.insert(0, str(REPOSITORY / "scripts"))
    try:
        import sample_server as served
    finally:
        sys.path.pop(0)
    with open(os.devnull, "w") as log:
        server = served.make_server(BUNDLE, log_fd=log.fileno())
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
        server.server_close()


def run(program, database_url, folder, **variables):
    environment = {name: value for name, value in os.environ.items() if name != "LUIGI_CONFIG_PATH"}
    done = subprocess.run(
        [sys.executable, __file__, program.__name__, database_url, str(folder)],
        cwd=folder, env=environment | variables, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_a_release_is_downloaded_extracted_transformed_loaded_and_taken_back(database_url, sample_server, tmp_path):
    run(the_whole_chain, database_url, tmp_path, SAMPLE_SERVER_URL=sample_server)


def test_bulk_upsert_takes_mappings_frames_and_arrow_into_any_named_table(database_url, tmp_path):
    run(upsert_of_any_kind, database_url, tmp_path)


def test_own_progress_and_own_rows_are_committed_together(database_url, tmp_path):
    run(progress_of_its_own, database_url, tmp_path)
