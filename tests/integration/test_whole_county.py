"""A whole made county, all tables of HCAD's codebook, through extract, transform and load: what is published is what its manifest says."""

import dataclasses
import json
import sys
import zipfile
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from whole_county.county import County  # noqa: E402
from whole_county.release import after, write_release  # noqa: E402

from pipeline.catalog import load_catalog, release_recipe  # noqa: E402
from pipeline.catalog.recipe import layout_recipe  # noqa: E402
from pipeline.database.engine import make_engine  # noqa: E402
from pipeline.database.ledger import ImportKey  # noqa: E402
from pipeline.database.migrate import migrate  # noqa: E402
from pipeline.extract import ExtractManager, WantedMember  # noqa: E402
from pipeline.extract.lookup import raw_lines  # noqa: E402
from pipeline.load.checkpoints import Origin  # noqa: E402
from pipeline.load.manager import LoadManager  # noqa: E402
from pipeline.transform import DataTransformer, choose_layout, read_header  # noqa: E402
from pipeline.transform.unpivot import unpivoted  # noqa: E402

YEAR = 2026
ODD = {
    "short_line": 0.004, "lost_zeros": 0.002, "undefined_byte": 0.004, "duplicate": 0.005, "conflict": 0.005, "repeat": 0.01, "pending": 0.01, "nul": 0.1,
    "no_year": 0.02,
}  # fmt: skip
EVENTS = {"vanish": 0.004, "split": 0.01, "sale": 0.02, "review": 0.05}


def catalog():
    """HCAD's codebook as it is shipped, but for the gate: a small county is below the floors, and this one is worse than its bounds allow.

    The map and the computed tables have tests of their own.
    """
    source = load_catalog(environ={"SAMPLE_SERVER_URL": ""})["hcad"]
    tables = tuple(table for table in source.tables if table.name != "parcel_centroid")
    archives = tuple(archive for archive in source.archives if archive.name in {table.archive for table in tables})
    source = dataclasses.replace(source, tables=tables, archives=archives, rolls=())
    return dataclasses.replace(source, gate=dataclasses.replace(source.gate, floors={}, max_quarantined_share=1.0, max_conflicting_share=1.0))


class Loaded:
    """A database that releases are brought into."""

    def __init__(self, url, folder):
        self.engine, self.folder, self.source = make_engine(url), folder, catalog()
        migrate(self.engine)
        self.loads = LoadManager(self.engine, quarantine_rows=5)

    def publish(self, manifest, place):
        """Bring a release all the way, as the tasks do."""
        tables, members = self.source.tables_for(YEAR), self._members(place)
        key = ImportKey("hcad", YEAR, f"release{manifest['release']}", release_recipe(self.source, YEAR))
        for table in tables:
            self._stage(key, table, *members[table.member])
        self.loads.check_release(key, self.source)
        self.loads.publish(key, self.source)

    def _members(self, place):
        found, by_archive = {}, defaultdict(list)
        for table in self.source.tables_for(YEAR):
            by_archive[table.archive].append(WantedMember(table.member, table.member_aliases, table.required))
        for archive, wanted in by_archive.items():
            folder = self.folder / place.name / archive
            folder.parent.mkdir(exist_ok=True)
            extracts = ExtractManager(part_bytes=100_000, limits=self.source.limits)
            manifest = extracts.extract_archive(place / str(YEAR) / f"{archive}.zip", folder, members=wanted)
            found |= {member.name: (member, folder / member.file) for member in manifest.members}
        return found

    def _stage(self, key, table, member, path):
        reading = read_header(table, choose_layout(table, member, year=YEAR, version=None), member)
        origin = Origin.of(member, layout_recipe(table, reading.layout))
        if self.loads.open_import(key, table) and self.loads.keep_table(key, table, member_sha256=member.sha256, recipe=origin.recipe):
            return
        folder = self.folder / key.release / table.name
        folder.mkdir(parents=True)

        def lines(numbers):
            return raw_lines(path, member, numbers, reading.layout.encoding)

        transformer, records = DataTransformer(table, tax_year=YEAR), 0
        for part in member.parts:
            records += transformer.transform_part(path, member, part, reading, folder / str(part.number)).read
            self.loads.stage_part(key, table, folder / str(part.number), origin=origin, raw_lines=lines)
        self.loads.settle_table(key, table, origin=origin, parts=len(member.parts), records=records, raw_lines=lines)

    def query(self, statement):
        connection = self.engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute(statement)
            return [dict(zip([column[0] for column in cursor.description], row, strict=True)) for row in cursor.fetchall()]
        finally:
            connection.close()

    def account(self):
        """What the ledger says of the current import, by table."""
        rows = self.query("select t.* from etl.import_table t join etl.import i using (import_id) where i.state = 'published'")
        return {row["table_name"]: row for row in rows}

    def sums(self, table, stated):
        """The sums and numbers of values of a live table's amounts, by the publisher's names."""
        columns = {column.source.lower(): column.name for column in table.columns}
        asked = ", ".join(f'sum("{columns[name.lower()]}")::text, count("{columns[name.lower()]}")' for name in stated)
        connection = self.engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute(f"select {asked} from {table.qualified}")
            row = cursor.fetchone()
        finally:
            connection.close()
        return {name: (Decimal(row[2 * place] or 0), row[2 * place + 1]) for place, name in enumerate(stated)}


def expected(stated):
    return {name: (Decimal(total), stated["values"][name]) for name, total in stated["sums"].items()}


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Two releases: their folders and manifests."""
    folder = tmp_path_factory.mktemp("county")
    first = write_release(County(1_000, seed=3, year=YEAR, quirks=ODD, headers={"owners": "none", "land": "last"}), folder / "1")
    return [(folder / "1", first), (folder / "2", write_release(after(folder / "1", EVENTS), folder / "2"))]


def test_every_table_of_the_codebook_is_published_with_the_counts_and_sums_of_the_manifest(releases, database_url, tmp_path):
    loaded = Loaded(database_url, tmp_path)
    try:
        for place, manifest in releases:
            loaded.publish(manifest, place)
            account = loaded.account()
            assert account.keys() == manifest["tables"].keys() == {table.name for table in loaded.source.tables_for(YEAR)}
            for table in loaded.source.tables_for(YEAR):
                stated, row = manifest["tables"][table.name], account[table.name]
                seen = {"read": row["rows_read"], "written": row["rows_loaded"], "quarantined": row["quarantined"], "duplicate": row["duplicate"]}
                assert seen == {what: stated[what] for what in seen}, (table.name, row)
                assert row["filtered"] == 0
                by_rule = dict(row["refused"])
                assert sum(by_rule.values()) == row["quarantined"], "a line breaks one rule"
                assert {rule: by_rule.pop(rule) for rule in stated["refused"]} == stated["refused"], table.name
                assert sum(by_rule.values()) == stated["conflicting"]
                if manifest["release"]:
                    assert {what: row[what] for what in ("inserted", "updated", "deleted")} == stated["changes"], table.name
                if stated["sums"]:
                    assert loaded.sums(table, stated["sums"]) == expected(stated), table.name
                identity = table.key or table.parent[:1]
                if len(identity) == len(stated["distinct"]["of"]):
                    named = ", ".join(f'"{name}"' for name in identity)
                    ((counted),) = loaded.query(f"select count(*) from (select distinct {named} from {table.qualified}) found")
                    assert counted["count"] == stated["distinct"]["count"], table.name
    finally:
        loaded.engine.dispose()


def test_members_that_only_past_years_have_give_the_rows_of_the_manifest(tmp_path):
    """Minerals as personal property, and the wide exemption tables as long ones."""
    manifest, source = write_release(County(800, seed=4, year=2023, is_current=False, quirks=ODD), tmp_path), catalog()
    tables = {table.name: table for table in source.tables_for(2023)}
    with zipfile.ZipFile(tmp_path / "long.zip", "w") as archive:
        for name, stated in manifest["long"].items():
            members = _extracted(source, tmp_path / "2023" / f"{tables[name].archive}.zip", [f"{wide}.txt" for wide in stated["of"]], tmp_path / name)
            of = zip(("exempt_val", "exempt_rate"), members.values(), strict=True)
            archive.writestr(f"{name}.txt", b"".join(unpivoted(tables[name], dict(of), year=2023)))
    made = _extracted(source, tmp_path / "long.zip", [f"{name}.txt" for name in manifest["long"]], tmp_path / "long")
    made |= _extracted(source, tmp_path / "2023" / "PP_files.zip", ["t_pp_e.txt"], tmp_path / "minerals")
    for name, stated in [*manifest["long"].items(), ("t_pp_e", manifest["tables"]["t_pp_e"])]:
        member, path = made[f"{name}.txt"]
        reading = read_header(tables[name], choose_layout(tables[name], member, year=2023, version=None), member)
        (part,) = member.parts
        report = DataTransformer(tables[name], tax_year=2023).transform_part(path, member, part, reading, tmp_path / f"{name}.part")
        assert report.written - stated.get("conflicting", 0) == stated["written"] > 0, name
        assert report.refused == stated.get("refused", {})
        assert report.duplicate == stated.get("duplicate", 0)


def _extracted(source, archive, names, folder):
    extracts = ExtractManager(part_bytes=1 << 26, limits=source.limits)
    found = extracts.extract_archive(archive, folder, members=[WantedMember(name) for name in names]).members
    return {name: next((member, folder / member.file) for member in found if member.name == name) for name in names}


def test_manifest_is_json_that_makes_the_same_county_again(releases, tmp_path):
    place, manifest = releases[1]
    described = json.loads((place / "manifest.json").read_text())["county"]
    assert write_release(County(**described), tmp_path)["tables"] == manifest["tables"]
