"""The parcels' coordinates on their whole way: from map layers on a server into the database, with all that is wrong with such layers."""

import datetime as dt
import itertools

import pytest

pytest.importorskip("pyogrio", reason="the extra gis")

import shapely
from click.testing import CliRunner
from fixtures.map_layers import NORTH, box, with_wrong_crc, write_layer, zipped
from fixtures.tiny_county import write_county
from luigi.task import flatten
from test_acquire_stages import Server, engine, packed, server, tasks  # noqa: F401  # fixtures

from pipeline import cli, settings
from pipeline.catalog import shipped_schemas
from pipeline.database.engine import transaction
from pipeline.database.runs import start_run
from pipeline.outcome import outcome_of
from pipeline.settings import process_settings, process_sources

PARCELS = """
[archives.Parcels]
base_url = "{url}/GIS"
path = "Parcels.zip"
fallback = "Parcels_{{year}}_Oct.zip"
required = false
nested = true
years = [2021, 2099]

[gate]
max_quarantined_share = 0.3
"""
ACCOUNTS = [f"{number:013d}" for number in range(1, 11)]


def bring(task):
    """Do what Luigi does with a task, in this process and one at a time: what it needs first, then what it asks for while it runs."""
    if task.complete():
        return
    for needed in flatten(task.requires()):
        bring(needed)
    for asked in task.run() or ():
        for needed in flatten(asked):
            bring(needed)
    assert task.complete()


class Map:
    """The county whose parcels are mapped: what its server offers, a run of the pipeline, and what the database then has."""

    def __init__(self, tasks, server, folder):  # noqa: F811
        self.tasks, self.server, self.folder = tasks, server, folder
        self._numbers = itertools.count(1)
        schemas = process_settings().catalog_path / "tiny"
        write_county(schemas, server.url, hearings=PARCELS.format(url=server.url))
        table = (shipped_schemas() / "hcad" / "parcel_centroid.toml").read_text()
        (schemas / "parcel_centroid.toml").write_text(table.replace('table = "real_acct"', 'table = "owner"').replace("min = 0.97", "min = 0.0"))
        process_sources.cache_clear()

    def offer(self, archive, name="Parcels"):
        body = archive.read_bytes()
        self.server.bodies[f"/GIS/{name}.zip"] = (body, f'"{next(self._numbers)}"')

    def layer(self, name, shapes, accounts, **more):
        """A zip of a layer."""
        folder = self.folder / f"map{next(self._numbers)}"
        write_layer(folder / name, shapes, {"HCAD_NUM": accounts}, **more)
        return zipped(folder, folder.with_suffix(".zip"))

    def run(self, *, force=False):
        """Bring the county to what it offers now; gives what the run says of it."""
        as_of = dt.datetime(2026, 1, 1) + dt.timedelta(seconds=next(self._numbers))
        run_id = start_run(engine(), "run", "production", as_of)
        self.server.asked.clear()
        sync = self.tasks.SyncSource(source="tiny", year=2025, as_of=as_of, force=force)
        bring(sync)
        return outcome_of(engine(), process_settings(), "tiny", 2025, as_of, run_id, [])

    def rows(self, statement):
        with transaction(engine()) as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def points(self):
        return self.rows("select acct, x::text, y::text, latitude::text, longitude::text, area::text from tiny.parcel_centroid order by acct, x")


@pytest.fixture
def county(tasks, server, tmp_path):  # noqa: F811
    return Map(tasks, server, tmp_path)


def account_of(found, table="parcel_centroid"):
    (account,) = [row for row in found.tables if row.table == table]
    return account


@pytest.mark.fault(52)
def test_every_polygon_is_a_row_or_is_quarantined_with_a_reason_and_none_is_at_zero(county):
    shapes = [*map(box, range(5)), box(0), box(9), shapely.Polygon(), box(east=0.0, north=0.0), box(7)]
    # The sixth is stacked on the first; the seventh is a second polygon of the second; the last one is of no account.
    accounts = [*ACCOUNTS[:6], ACCOUNTS[1], *ACCOUNTS[7:9], None]
    county.server.put("Roll", packed("0000000000001"))
    county.offer(county.layer("ParcelsCity.shp", shapes, accounts))
    found = county.run()
    assert (found.exit_code, found.state) == (0, "published"), found.message
    account = account_of(found)
    assert (account.read, account.loaded, account.quarantined, account.duplicate, account.filtered) == (10, 7, 3, 0, 0)
    (refused,) = [row[0] for row in county.rows("select refused from etl.quarantine_part where table_name = 'parcel_centroid'")]
    # The empty one lacks all five, the one at the plane's origin is far off, the last one is of nobody.
    assert refused == dict.fromkeys(("x:required", "y:required", "area:required"), 1) | {
        "latitude:required": 1, "longitude:required": 1, "latitude:min": 1, "longitude:min": 1, "acct:required": 1,
    }  # fmt: skip
    points = county.points()
    assert [point[0] for point in points] == sorted([*ACCOUNTS[:6], ACCOUNTS[1]])
    assert points[0] == (ACCOUNTS[0], "3120050.00", "13840025.00", "29.7552480", "-95.3701381", "5000.00")
    assert points[0][1:] == points[-1][1:]


@pytest.mark.fault(28)
@pytest.mark.fault(52)
def test_accounts_keep_their_last_good_coordinates_when_the_archive_is_bad(county):
    shapes = list(map(box, range(10)))
    good = county.layer("Parcels.shp", shapes, ACCOUNTS)
    county.server.put("Roll", packed("0000000000001"))
    county.offer(good)
    assert county.run().state == "published"
    before = county.points()
    assert len(before) == 10

    moved = [box(number, north=NORTH + 1000) for number in range(10)]
    broken = with_wrong_crc(county.layer("Parcels.shp", moved, ACCOUNTS), "Parcels.dbf")
    county.server.put("Roll", packed("0000000000002"))
    county.offer(broken)
    found = county.run()
    assert (found.exit_code, found.state) == (0, "published"), found.message
    assert "Parcels is bad, and the last good one stands in: E_ARCHIVE" in found.message and "Parcels.dbf" in found.message
    assert (county.points(), county.rows("select acct from tiny.owner")) == (before, [("0000000000002",)])

    for archive, code in (
        (county.layer("Parcels.shp", moved, ACCOUNTS, crs="EPSG:32039"), "E_LAYER"),
        (county.layer("Roads.shp", moved, ACCOUNTS, geometry="MultiPolygon", crs=None), "E_LAYER"),
        (zipped(county.folder / "schemas", county.folder / "none.zip"), "E_MEMBER"),
    ):
        county.offer(archive)
        found = county.run()
        assert (found.exit_code, code in found.message, county.points()) == (0, True, before), found.message

    # The publisher's October copy stands in as soon as there is one; then the archive is a good one again, and a geodatabase.
    county.offer(broken)
    october = [box(number, north=NORTH + 2000) for number in range(10)]
    county.offer(county.layer("Parcels.shp", october, ACCOUNTS), "Parcels_2025_Oct")
    found = county.run()
    assert found.exit_code == 0 and "its fallback stands in" in found.message
    assert county.points()[0][2] == "13842025.00"
    county.offer(county.layer("Parcels.gdb", moved, ACCOUNTS))
    found = county.run()
    assert (found.exit_code, found.message) == (0, "")
    assert county.points()[0][2] == "13841025.00"


def test_map_of_a_past_year_that_is_there_under_its_other_name_only_is_taken_and_nothing_is_said_to_be_bad(county):
    county.server.put("Roll", packed("0000000000001"))
    county.offer(county.layer("Parcels.shp", map(box, range(10)), ACCOUNTS), "Parcels_2025_Oct")
    found = county.run()
    assert (found.exit_code, found.state, found.message, len(county.points())) == (0, "published", "", 10)
    assert [line for line in county.server.asked if line.startswith("GET /GIS")] == ["GET /GIS/Parcels_2025_Oct.zip"]
    found = county.run()
    assert (found.exit_code, found.state, found.message) == (0, "unchanged", "")
    assert not [line for line in county.server.asked if line.startswith("GET")]
    found = county.run(force=True)
    assert (found.exit_code, found.state, found.message) == (0, "unchanged", "")
    assert "GET /GIS/Parcels_2025_Oct.zip" in county.server.asked
    county.offer(county.layer("Parcels.shp", [box(number, north=NORTH + 1000) for number in range(10)], ACCOUNTS))
    assert (county.run().state, county.points()[0][2]) == ("published", "13841025.00")


def test_same_map_packed_in_another_way_is_neither_transformed_nor_staged_again(county):
    shapes = list(map(box, range(10)))
    county.server.put("Roll", packed("0000000000001"))
    county.offer(county.layer("Parcels.shp", shapes, ACCOUNTS))
    county.run()
    county.offer(county.layer("Land.gdb", shapes, ACCOUNTS))
    found = county.run()
    assert (found.state, account_of(found).disposition) == ("published", "unchanged")


@pytest.mark.fault(52)
def test_without_the_extra_the_map_is_left_out_and_every_run_says_so_and_all_else_is_published(county, monkeypatch):
    county.server.put("Roll", packed("0000000000001"))
    county.offer(county.layer("Parcels.shp", map(box, range(10)), ACCOUNTS))
    assert county.run().state == "published"
    before = county.points()
    county.server.put("Roll", packed("0000000000002"))
    county.offer(county.layer("Parcels.shp", [box(number, north=NORTH + 9) for number in range(10)], ACCOUNTS))
    with monkeypatch.context() as patched:
        patched.setattr(settings, "missing", lambda packages: packages[:1])
        process_sources.cache_clear()
        found = county.run()
        assert (found.exit_code, found.state) == (0, "published"), found.message
        assert found.message == "Parcels is left out: parcel_centroid needs pyogrio, not installed here: pip install 'hcad-pipeline[gis]'"
        assert account_of(found).disposition == "carried_over"
        checked = CliRunner().invoke(cli.cli, ["check"])
        assert (checked.exit_code, "tiny: Parcels is left out: parcel_centroid needs pyogrio" in checked.output) == (0, True)
        assert not [line for line in county.server.asked if "GIS" in line]
        assert (county.points(), county.rows("select acct from tiny.owner")) == (before, [("0000000000002",)])
    process_sources.cache_clear()
    found = county.run()
    assert (found.state, found.message) == ("published", "")
    assert county.points()[0][2] == "13840034.00"
