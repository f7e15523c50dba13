"""Map layers: found by what is in them, read polygon by polygon, and refused with what was seen."""

from __future__ import annotations

import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pyogrio", reason="the extra gis")

import numpy as np
import shapely
from fixtures.map_layers import EAST, NORTH, box, circle, with_wrong_crc, write_layer, zipped

from pipeline.catalog.model import Limits
from pipeline.errors import ArchiveError, ConfigurationError, LayerError, MemberError, PipelineError
from pipeline.extract import ExtractManager, layer
from pipeline.extract.layer_files import Dataset
from pipeline.extract.wanted import WantedLayer, WantedMember, cut_id

ACCOUNTS = ["0010010000013", "0010020000016", "0010020000017"]
FIELDS = (("HCAD_NUM", "ACCOUNT"), ("geometry.x",), ("geometry.y",), ("geometry.latitude",), ("geometry.longitude",), ("geometry.area",))
WANTED = WantedMember("Parcels", (), True, layer=WantedLayer(FIELDS, "EPSG:2278"))
HEADER = "HCAD_NUM\tgeometry.x\tgeometry.y\tgeometry.latitude\tgeometry.longitude\tgeometry.area"
#: The centroids of the first three boxes.
LINES = [
    "0010010000013\t3120050.00\t13840025.00\t29.7552480\t-95.3701381\t5000.00",
    "0010020000016\t3120250.00\t13840025.00\t29.7552310\t-95.3695081\t5000.00",
    "0010020000017\t3120450.00\t13840025.00\t29.7552139\t-95.3688781\t5000.00",
]


@pytest.fixture
def extract(tmp_path):
    """Extract the wanted layer of an archive; gives its lines, and keeps the events."""

    def run(archive, member=WANTED, **settings):
        run.events = []
        manager = ExtractManager(
            part_bytes=1000, limits=Limits(100, 1 << 30, 300.0), on_event=lambda *event: run.events.append(event)
        )
        folder = tmp_path / f"out-{archive.stem}"
        manifest = manager.extract_archive(archive, folder, members=[member], nested=True, **settings)
        assert sorted(path.name for path in folder.iterdir()) == sorted(["manifest.json", *(found.file for found in manifest.members)])
        assert manager.verify_members(folder) == ()
        run.manifest = manifest
        return (folder / "Parcels").read_text().splitlines() if manifest.members else None

    return run


@pytest.fixture
def parcels(tmp_path):
    """A folder with the shapefile of three parcels."""
    write_layer(tmp_path / "map" / "Parcels.shp", map(box, range(3)), {"OBJECTID": [1, 2, 3], "HCAD_NUM": ACCOUNTS})
    return tmp_path / "map"


def test_shapefile_gives_a_line_a_polygon_with_the_centroid_in_feet_and_in_degrees(parcels, tmp_path, extract):
    assert extract(zipped(parcels, tmp_path / "a.zip")) == [HEADER, *LINES]
    (member,) = extract.manifest.members
    assert (member.lines, member.file, member.crlf) == (4, "Parcels", 0)
    (told,) = [figures for name, figures in extract.events if name == "extract.layer"]
    del told["seconds"]
    assert told == {
        "archive": "a.zip", "layer": "Parcels.shp", "polygons": 3, "without_point": 0, "stacked": 0, "repeated": 0, "cleaned": 0,
    }  # fmt: skip


def test_degrees_are_those_of_the_published_formulas_of_the_texas_south_central_zone():
    """Lambert's conic with two parallels on GRS 80, written out from Snyder (USGS Professional Paper 1395, page 107 ff.)."""
    from math import atan, atan2, cos, degrees, log, pi, radians, sin, sqrt, tan

    foot, a, f = 1200 / 3937, 6378137.0, 1 / 298.257222101
    e = sqrt(2 * f - f * f)

    def m(p):
        return cos(p) / sqrt(1 - (e * sin(p)) ** 2)

    def t(p):
        return tan(pi / 4 - p / 2) / ((1 - e * sin(p)) / (1 + e * sin(p))) ** (e / 2)

    p0, p1, p2, l0 = radians(27 + 50 / 60), radians(28 + 23 / 60), radians(30 + 17 / 60), radians(-99)
    n = (log(m(p1)) - log(m(p2))) / (log(t(p1)) - log(t(p2)))
    big = m(p1) / (n * t(p1) ** n)
    stated = LINES[0].split("\t")
    x, y = float(stated[1]) * foot - 600_000.0, a * big * t(p0) ** n - (float(stated[2]) * foot - 4_000_000.0)
    t1 = (sqrt(x * x + y * y) / (a * big)) ** (1 / n)
    p = pi / 2 - 2 * atan(t1)
    for _ in range(10):
        p = pi / 2 - 2 * atan(t1 * ((1 - e * sin(p)) / (1 + e * sin(p))) ** (e / 2))
    expected = degrees(atan2(x, y) / n + l0), degrees(p)
    assert expected == pytest.approx((float(stated[4]), float(stated[3])), abs=6e-8)


@pytest.mark.fault(52)
@pytest.mark.parametrize("name", ["ParcelsCity.shp", "HCAD_PDATA/Parcels/PARCELS.shp", "Parcels.gdb", "x/GIS_Public.gdb"])
def test_layer_is_found_by_its_fields_whatever_its_file_is_called(tmp_path, extract, name):
    write_layer(tmp_path / "map" / name, map(box, range(3)), {"hcad_num": ACCOUNTS, "Stacked": [0, 0, 1]})
    write_layer(tmp_path / "map" / "Roads.shp", [shapely.LineString([(0, 0), (1, 1)])], {"HCAD_NUM": ["1"]}, geometry="LineString")
    write_layer(tmp_path / "map" / "Blocks.shp", [box()], {"BLOCK": ["1"]})
    (tmp_path / "map" / "Parcels.shp.xml").write_text("<metadata/>")
    assert extract(zipped(tmp_path / "map", tmp_path / "a.zip")) == [HEADER, *LINES]


@pytest.mark.fault(52)
@pytest.mark.parametrize("name", ["Parcels.shp", "Parcels.gdb"])
def test_layer_in_a_zip_inside_the_archive_is_found(tmp_path, extract, name):
    write_layer(tmp_path / "map" / name, map(box, range(3)), {"HCAD_NUM": ACCOUNTS})
    zipped(tmp_path / "map", tmp_path / "outer" / "2026" / "Parcels.zip")
    assert extract(zipped(tmp_path / "outer", tmp_path / "a.zip")) == [HEADER, *LINES]


def test_geodatabase_whose_files_lie_in_no_folder_of_their_own_is_found(tmp_path, extract):
    path = write_layer(tmp_path / "map" / "Parcels.gdb", map(box, range(3)), {"HCAD_NUM": ACCOUNTS})
    assert extract(zipped(path, tmp_path / "a.zip")) == [HEADER, *LINES]


@pytest.mark.fault(52)
@pytest.mark.parametrize("name", ["Parcels.shp", "Parcels.gdb"])
def test_names_in_capitals_are_no_other_names(tmp_path, extract, name):
    write_layer(tmp_path / "map" / name, map(box, range(3)), {"HCAD_NUM": ACCOUNTS})
    archive = zipped(tmp_path / "map", tmp_path / "small.zip")
    with zipfile.ZipFile(archive) as small, zipfile.ZipFile(tmp_path / "a.zip", "w") as capitals:
        for member in small.namelist():
            capitals.writestr(member.upper(), small.read(member))
    assert extract(tmp_path / "a.zip") == [HEADER, *LINES]


def test_heights_of_the_corners_do_not_matter(tmp_path, extract):
    shapes = [shapely.force_3d(box(number), 40.0 + number) for number in range(3)]
    write_layer(tmp_path / "map" / "Parcels.shp", shapes, {"HCAD_NUM": ACCOUNTS}, geometry="Polygon Z")
    assert extract(zipped(tmp_path / "map", tmp_path / "a.zip")) == [HEADER, *LINES]


def test_field_is_found_under_another_of_its_names(tmp_path, extract):
    write_layer(tmp_path / "map" / "Parcels.shp", [box()], {"Account": ACCOUNTS[:1]})
    assert extract(zipped(tmp_path / "map", tmp_path / "a.zip")) == [HEADER, LINES[0]]


@pytest.mark.fault(52)
def test_polygon_without_a_position_has_blank_fields_and_never_a_zero(tmp_path, extract):
    shapes = [box(), None, shapely.Polygon(), box(7), box(1)]
    accounts = [ACCOUNTS[0], *(f"{number:013d}" for number in range(3)), ACCOUNTS[1]]
    path = write_layer(tmp_path / "map" / "Parcels.shp", shapes, {"HCAD_NUM": accounts})
    path.write_bytes(path.read_bytes().replace(struct.pack("<d", EAST + 1400), struct.pack("<d", float("nan"))))
    blank = [f"{account}\t\t\t\t\t" for account in accounts[1:4]]
    assert extract(zipped(tmp_path / "map", tmp_path / "a.zip")) == [HEADER, LINES[0], *blank, LINES[1]]
    assert dict(extract.events)["extract.layer"]["without_point"] == 3


@pytest.mark.fault(52)
def test_stacked_accounts_and_an_account_of_several_polygons_all_stay_and_are_counted(tmp_path, extract):
    shapes = [box(), box(), box(), box(1), box(2)]
    accounts = [ACCOUNTS[0], "0000000000001", "0000000000002", ACCOUNTS[1], ACCOUNTS[1]]
    write_layer(tmp_path / "map" / "Parcels.gdb", shapes, {"HCAD_NUM": accounts})
    lines = extract(zipped(tmp_path / "map", tmp_path / "a.zip"))
    assert [line.split("\t")[0] for line in lines[1:]] == accounts
    assert len({line.split("\t", 1)[1] for line in lines[1:4]}) == 1
    told = dict(extract.events)["extract.layer"]
    assert (told["stacked"], told["repeated"]) == (3, 2)


@pytest.mark.fault(52)
def test_several_rings_and_a_hole_weigh_in_the_centroid(tmp_path, extract):
    parts = shapely.MultiPolygon([box(width=100), box(5, width=300)])
    holed = shapely.Polygon(box().exterior, [box(width=50).exterior])
    write_layer(tmp_path / "map" / "Parcels.shp", [parts, holed], {"HCAD_NUM": ACCOUNTS[:2]})
    lines = [line.split("\t") for line in extract(zipped(tmp_path / "map", tmp_path / "a.zip"))[1:]]
    # (50 x 5,000 + 1,150 x 15,000) / 20,000, and the half of the box that is left.
    assert [(float(line[1]) - EAST, line[5]) for line in lines] == [(875.0, "20000.00"), (75.0, "2500.00")]


def test_arcs_of_a_geodatabase_are_read(tmp_path, extract):
    write_layer(tmp_path / "map" / "Parcels.gdb", [circle(EAST, NORTH, 100), box()], {"HCAD_NUM": ACCOUNTS[:2]})
    round_, square = [line.split("\t") for line in extract(zipped(tmp_path / "map", tmp_path / "a.zip"))[1:]]
    assert round_[1:3] == ["3120000.00", "13840000.00"]
    assert float(round_[5]) == pytest.approx(31415.9, rel=0.001)
    assert square[1:] == LINES[0].split("\t")[1:]


def test_numbers_and_texts_of_a_layer_are_written_as_they_are_and_separators_as_blanks(tmp_path, extract):
    values = {"HCAD_NUM": ["a\tb", None, "Muñoz"], "YR": [2025, 2026, 2027], "SHARE": [0.5, float("nan"), 3.0]}
    write_layer(tmp_path / "map" / "Parcels.gdb", map(box, range(3)), values)
    member = WantedMember("Parcels", (), True, layer=WantedLayer((("HCAD_NUM",), ("YR",), ("geometry.x",), ("SHARE",)), "EPSG:2278"))
    lines = extract(zipped(tmp_path / "map", tmp_path / "a.zip"), member)
    assert lines[1:] == ["a b\t2025\t3120050.00\t0.5", "\t2026\t3120250.00\t", "Muñoz\t2027\t3120450.00\t3"]
    assert dict(extract.events)["extract.layer"]["cleaned"] == 1


@pytest.mark.fault(52)
@pytest.mark.parametrize(
    ("suffixes", "seen"),
    [
        pytest.param([".shx"], "Parcels.shp, without .shx", id="shx"),
        pytest.param([".dbf"], "Parcels.shp, without .dbf", id="dbf"),
        pytest.param([".shp"], "Parcels.shp, without .shp", id="shp"),
        pytest.param([".dbf", ".shx"], "Parcels.shp, without .shx, .dbf", id="dbf and shx"),
        pytest.param([".prj"], "Parcels.shp states no coordinate system", id="prj"),
    ],
)
def test_layer_without_one_of_its_files_is_refused_by_name(parcels, tmp_path, extract, suffixes, seen):
    with pytest.raises(LayerError) as refused:
        extract(zipped(parcels, tmp_path / "a.zip", without=suffixes))
    assert seen in str(refused.value)
    assert not list(tmp_path.glob("out-*")) and not list(tmp_path.glob(".out-*"))


@pytest.mark.fault(52)
def test_broken_layer_that_is_called_as_declared_is_not_passed_over_for_another(parcels, tmp_path, extract):
    write_layer(parcels / "Old.shp", map(box, range(3)), {"HCAD_NUM": ACCOUNTS})
    (parcels / "Parcels.dbf").unlink()
    with pytest.raises(LayerError, match=r"Parcels\.shp, without \.dbf"):
        extract(zipped(parcels, tmp_path / "a.zip"))


def test_layer_that_gives_fewer_polygons_than_it_states_is_refused(parcels):
    (found,) = layer._layers_of(Dataset(parcels / "Parcels.shp", "Parcels.shp"))
    with pytest.raises(LayerError, match="gave 3 of the 4 polygons"):
        list(layer.layer_lines(replace(found, polygons=4), WANTED.layer, "a.zip"))


@pytest.mark.fault(52)
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32039", "EPSG:3857", "EPSG:2277", "EPSG:3673"])
@pytest.mark.parametrize("name", ["Parcels.shp", "Parcels.gdb"])
def test_layer_in_another_coordinate_system_is_refused(tmp_path, extract, crs, name):
    write_layer(tmp_path / "map" / name, [box()], {"HCAD_NUM": ACCOUNTS[:1]}, crs=crs)
    with pytest.raises(LayerError, match=r"Parcels.* is in .*Expected: EPSG:2278, NAD83 / Texas South Central \(ftUS\)"):
        extract(zipped(tmp_path / "map", tmp_path / "a.zip"))


def test_layer_whose_system_has_a_height_besides_is_taken(tmp_path, extract):
    write_layer(tmp_path / "map" / "Parcels.gdb", map(box, range(3)), {"HCAD_NUM": ACCOUNTS}, crs="EPSG:2278+6360")
    assert extract(zipped(tmp_path / "map", tmp_path / "a.zip")) == [HEADER, *LINES]


@pytest.mark.fault(52)
def test_archive_without_the_wanted_layer_is_refused_with_what_it_holds(tmp_path, extract):
    write_layer(tmp_path / "map" / "Parcels.shp", [box()], {"HCADNUM": ACCOUNTS[:1], "CITY": ["Houston"]})
    write_layer(tmp_path / "map" / "P.gdb", [shapely.Point(1, 1)], {"HCAD_NUM": ACCOUNTS[:1]}, geometry="Point", layer="Points")
    archive = zipped(tmp_path / "map", tmp_path / "a.zip")
    with pytest.raises(MemberError) as refused:
        extract(archive)
    for seen in ("no layer of polygons has the fields HCAD_NUM", "Parcels.shp (Polygon: HCADNUM, CITY)", "P.gdb/Points (Point: HCAD_NUM)"):
        assert seen in str(refused.value)
    assert extract(archive, WantedMember("Parcels", (), False, layer=WANTED.layer)) is None


def test_archive_without_map_data_is_refused(tmp_path, extract):
    (tmp_path / "map").mkdir()
    (tmp_path / "map" / "readme.pdf").write_text("see the web site")
    with pytest.raises(MemberError, match="there is no map data"):
        extract(zipped(tmp_path / "map", tmp_path / "a.zip"))


@pytest.mark.fault(52)
def test_of_two_layers_with_the_fields_only_one_that_is_called_as_declared_is_taken(tmp_path, extract):
    for name in ("ParcelsCity.shp", "ParcelsCounty.shp"):
        write_layer(tmp_path / "map" / name, map(box, range(3)), {"HCAD_NUM": ACCOUNTS})
    archive = zipped(tmp_path / "map", tmp_path / "a.zip")
    with pytest.raises(MemberError, match="2 layers of polygons have the fields HCAD_NUM: ParcelsCity.shp, ParcelsCounty.shp"):
        extract(archive)
    assert extract(archive, WantedMember("Parcels", ("PARCELSCITY",), True, layer=WANTED.layer)) == [HEADER, *LINES]


def test_file_of_a_layer_that_is_there_twice_is_refused(parcels, tmp_path, extract):
    archive = zipped(parcels, tmp_path / "a.zip")
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr("PARCELS.SHP", b"other")
    with pytest.raises(MemberError, match=r"Parcels\.shp and PARCELS\.SHP are one file of one layer"):
        extract(archive)


@pytest.mark.fault(28)
@pytest.mark.fault(52)
def test_wrong_crc_in_a_file_of_the_layer_is_refused_and_in_another_file_told(parcels, tmp_path, extract):
    (parcels / "Parcels.shp.xml").write_text("<metadata/>")
    archive = with_wrong_crc(zipped(parcels, tmp_path / "a.zip", below="HCAD_PDATA/Parcels/"), "HCAD_PDATA/Parcels/Parcels.dbf")
    with pytest.raises(ArchiveError, match=r"Parcels\.dbf"):
        extract(archive)
    harmless = with_wrong_crc(zipped(parcels, tmp_path / "b.zip"), "Parcels.shp.xml")
    assert extract(harmless) == [HEADER, *LINES]
    assert "extract.unneeded_member_damaged" in dict(extract.events)


@pytest.mark.fault(52)
def test_file_that_only_calls_itself_a_shapefile_is_not_given_to_the_reader(parcels, tmp_path, extract):
    """The library would open it by its content: this one asks it for another file of the machine."""
    (parcels / "Parcels.shp").write_text("<OGRVRTDataSource><OGRVRTLayer name='layer'><SrcDataSource>/etc/x.csv</SrcDataSource>")
    with pytest.raises(LayerError, match=r"Parcels\.shp, that is no shapefile"):
        extract(zipped(parcels, tmp_path / "a.zip"))


@pytest.mark.fault(52)
@pytest.mark.parametrize("suffix", [".shx", ".dbf", ".shp"])
def test_shapefile_with_a_file_cut_short_under_a_right_sum_loses_no_polygon_silently(tmp_path, extract, suffix):
    write_layer(tmp_path / "map" / "Parcels.shp", map(box, range(200)), {"HCAD_NUM": [f"{n:013d}" for n in range(200)]})
    path = tmp_path / "map" / f"Parcels{suffix}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    try:
        lines = extract(zipped(tmp_path / "map", tmp_path / "a.zip"))
    except PipelineError as error:
        assert isinstance(error, LayerError)
        return
    # What is told of it is a line a polygon; what is gone of it is a blank, which no rule of a key or of a position passes.
    assert len(lines) == 201
    assert sum("\t\t" in line or line.startswith("\t") for line in lines[1:]) >= 90


def test_layer_is_read_in_batches_that_leave_no_mark_in_the_lines(tmp_path, extract, monkeypatch):
    shapes, accounts = [box(number) for number in range(25)], [f"{number:013d}" for number in range(25)]
    for suffix in ("shp", "gdb"):
        write_layer(tmp_path / suffix / f"Parcels.{suffix}", shapes, {"HCAD_NUM": accounts})
        whole = extract(zipped(tmp_path / suffix, tmp_path / f"{suffix}.zip"))
        with monkeypatch.context() as patched:
            patched.setattr(layer, "BATCH_POLYGONS", 10)
            assert extract(zipped(tmp_path / suffix, tmp_path / f"{suffix}-10.zip")) == whole
        assert len(whole) == 26


def test_same_layer_makes_the_same_member_whatever_it_is_packed_in(parcels, tmp_path, extract):
    write_layer(tmp_path / "other" / "a" / "Land.gdb", map(box, range(3)), {"HCAD_NUM": ACCOUNTS})
    extract(zipped(parcels, tmp_path / "a.zip"))
    first = extract.manifest.members[0].sha256
    extract(zipped(tmp_path / "other", tmp_path / "b.zip"))
    assert extract.manifest.members[0].sha256 == first


def test_layers_decide_the_cut_and_members_without_one_keep_theirs():
    limits = Limits(1, 1, 1.0)
    moved = WantedMember("Parcels", (), True, layer=WantedLayer(FIELDS, "EPSG:2277"))
    plain = WantedMember("Parcels")
    cuts = [cut_id([member], limits, 1) for member in (WANTED, moved, plain)]
    assert len(set(cuts)) == 3
    assert cut_id([WantedMember("real_acct.txt")], Limits(1000, 64 << 30, 250.0), 64 << 20) == "8ce5fde87eca"


def test_where_the_reader_is_not_installed_a_layer_is_refused_with_what_to_install(parcels, tmp_path, extract, monkeypatch):
    monkeypatch.setattr(layer, "missing", lambda packages: ("pyogrio",))
    with pytest.raises(ConfigurationError, match=r"pyogrio is not installed.*hcad-pipeline\[gis\]"):
        extract(zipped(parcels, tmp_path / "a.zip"))


_MEASURE = """
import re, sys
from pathlib import Path
from pipeline.catalog.model import Limits
from pipeline.extract import ExtractManager
from pipeline.extract.wanted import WantedLayer, WantedMember

wanted = WantedMember("Parcels", (), True, layer=WantedLayer((("HCAD_NUM",), ("geometry.x",), ("geometry.latitude",)), "EPSG:2278"))
manifest = ExtractManager(limits=Limits(100, 1 << 30, 300.0)).extract_archive(Path(sys.argv[1]), Path(sys.argv[2]), members=[wanted])
print(manifest.members[0].lines, re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.serial
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="asks Linux for the peak of a process's memory")
def test_memory_stays_flat_however_many_polygons_there_are(tmp_path):
    """Read at once the more polygons, with all of their corners, would take several times the bound."""
    peaks = {}
    for polygons in (5_000, 20_000):
        corners = np.linspace(0, 2 * np.pi, 65)[:, None] + np.zeros(polygons)
        shapes = shapely.polygons(np.stack([EAST + np.cos(corners.T), NORTH + np.sin(corners.T)], axis=-1))
        place = tmp_path / str(polygons)
        write_layer(place / "Parcels.shp", shapes, {"HCAD_NUM": [f"{number:013d}" for number in range(polygons)]})
        archive = zipped(place, tmp_path / f"{polygons}.zip")
        command = [sys.executable, "-c", _MEASURE, archive, tmp_path / f"out-{polygons}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(layer.__file__).parents[2])
        lines, peaks[polygons] = map(int, done.stdout.split())
        assert lines == polygons + 1
    assert peaks[20_000] - peaks[5_000] < 20 * 1024
