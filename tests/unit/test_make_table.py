"""scripts/make_table.py: the pipeline's real stages find in its files exactly what its manifest says."""

import hashlib
import json
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import county_member  # noqa: E402
import make_table  # noqa: E402
from county_account import digested, typed_texts  # noqa: E402
from county_faults import KINDS  # noqa: E402
from county_member import County, even_rates  # noqa: E402
from county_shapes import REAL_ACCT  # noqa: E402

from pipeline.catalog import load_catalog  # noqa: E402
from pipeline.extract import ExtractManager, WantedMember  # noqa: E402
from pipeline.transform import DataTransformer, choose_layout, read_header  # noqa: E402

ROWS = 2_000
FORMS = ("delimited", "fixed_width")
EXAMPLE = SCRIPTS.parent / "tests" / "fixtures" / "sample" / "hcad" / "2025" / "Real_acct_owner.zip"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The county as a source, by the schema files that the script writes."""
    folder = tmp_path_factory.mktemp("schemas")
    make_table.write_schemas(REAL_ACCT, folder)
    return load_catalog(folder, environ={"COUNTY_URL": "http://127.0.0.1:1"})["hcad"]


def a_county(**options):
    return County(REAL_ACCT, **{"rows": ROWS, "rates": even_rates(0.2), **options})


def content(made):
    return b"".join(made.blocks())


def imported(source, made, folder, part_bytes=1 << 30):
    """Extract and transform the county's archive in the real way: the reports, the rows of each part, the manifest to compare with."""
    archive = folder / "Real_acct_owner.zip"
    manifest = made.write_with_manifest(archive, is_zip=True)
    table = source.table("real_acct")
    extracts = ExtractManager(part_bytes=part_bytes, limits=source.limits)
    (member,) = extracts.extract_archive(archive, folder / "members", members=[WantedMember(table.member)]).members
    assert (member.bytes, member.sha256) == (manifest["member"]["bytes"], manifest["member"]["sha256"])
    reading = read_header(table, choose_layout(table, member, year=made.year, version=None), member)
    assert reading.layout.format == made.form
    transformer = DataTransformer(table, tax_year=made.year)
    places = [folder / f"part-{part.number}" for part in member.parts]
    reports = [
        transformer.transform_part(folder / "members" / member.file, member, part, reading, place)
        for part, place in zip(member.parts, places, strict=True)
    ]
    return reports, pa.concat_tables([pq.read_table(place / "rows.parquet") for place in places]), manifest


def sums(rows):
    return {name: f"{Decimal(pc.sum(pc.cast(rows.column(name), pa.decimal128(38, 4))).as_py()).normalize():f}" for name in REAL_ACCT.amounts}


def plain(stated):
    return {name: f"{Decimal(text).normalize():f}" for name, text in stated.items()}


def published(rows):
    """The rows after the parts met: of each key the first one."""
    seen = set()
    first = [not (acct in seen or seen.add(acct)) for acct in rows.column("acct").to_pylist()]
    return rows.filter(pa.array(first))


def digests(rows):
    names = [field.name for field in REAL_ACCT.fields]
    return {name: hashlib.sha256(digested(typed_texts(rows.column(name).combine_chunks()))).hexdigest() for name in names}


@pytest.mark.fault(39)
@pytest.mark.fault(40)
@pytest.mark.fault(41)
@pytest.mark.fault(42)
@pytest.mark.fault(43)
@pytest.mark.fault(44)
@pytest.mark.fault(45)
@pytest.mark.fault(46)
@pytest.mark.parametrize("form", FORMS)
def test_transform_of_every_kind_of_bad_record_gives_exactly_the_manifest(source, tmp_path, form):
    (report,), rows, manifest = imported(source, a_county(form=form, release=2), tmp_path)
    stated = manifest["part"]
    assert all(manifest["kinds"][kind] > 5 for kind in KINDS)
    assert report.refused == stated["refused"]
    assert (report.read, report.written, report.quarantined, report.duplicate) == (
        stated["read"], stated["written"], stated["quarantined"], stated["duplicate"],
    )  # fmt: skip
    assert report.filtered == stated["filtered"]
    assert report.refused == stated["refused"]
    assert report.nulled == stated["nulled"]
    assert sums(rows) == plain(stated["sums"])
    last = published(rows)
    assert last.num_rows == manifest["published"]["rows"] == rows.num_rows - manifest["conflicting"]
    assert sums(last) == plain(manifest["published"]["sums"])
    assert digests(last) == manifest["published"]["sha256"]


def test_parts_lose_no_record_and_meet_in_the_rows_of_the_manifest(source, tmp_path):
    reports, rows, manifest = imported(source, a_county(), tmp_path, part_bytes=150_000)
    assert len(reports) > 5
    assert sum(report.read for report in reports) == manifest["part"]["read"]
    assert sum((Counter(report.refused) for report in reports), Counter()) == manifest["part"]["refused"]
    assert sum((Counter(report.nulled) for report in reports), Counter()) == manifest["part"]["nulled"]
    assert digests(published(rows)) == manifest["published"]["sha256"]


def test_both_formats_hold_the_same_records():
    # An overlong text breaks a fixed-width record and no delimited one.
    rates = {**even_rates(0.2), "overlong_text": 0.0}
    accounts = []
    for form in FORMS:
        made = a_county(form=form, rates=rates)
        account = county_member.Account(made.shape, made.table())
        for _ in made.blocks(account):
            pass
        accounts.append(account.manifest())
    delimited, fixed = accounts
    assert fixed["published"] == delimited["published"]
    assert fixed["part"]["nulled"] == delimited["part"]["nulled"]
    width = delimited["part"]["refused"].pop("*:field_count")
    assert fixed["part"]["refused"].pop("*:record_width") == width
    assert fixed["part"]["refused"] == delimited["part"]["refused"]


@pytest.mark.parametrize("form", FORMS)
def test_same_seed_gives_the_same_bytes_and_another_seed_others(form):
    made = a_county(form=form, release=2)
    assert content(made) == content(made)
    assert content(replace(made, seed=1)) != content(made)


def test_archive_made_twice_is_the_same_file(tmp_path):
    made = a_county(rows=300)
    for name in ("a.zip", "b.zip"):
        made.write_with_manifest(tmp_path / name, is_zip=True)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_blocks_are_made_by_themselves(monkeypatch):
    monkeypatch.setattr(county_member, "BLOCK_ROWS", 1000)
    made = a_county(rows=2500, header="none")
    blocks = list(made.blocks())
    assert len(blocks) == 3
    assert list(replace(made, rows=2000).blocks()) == blocks[:2]


def rows_by_account(source, made, folder):
    folder.mkdir()
    _, rows, manifest = imported(source, made, folder)
    last = published(rows).drop_columns(["line"])
    return dict(zip(last.column("acct").to_pylist(), last.column("row_hash").to_pylist(), strict=True)), manifest


def test_next_release_changes_as_many_rows_as_its_manifest_says(source, tmp_path):
    before, first = rows_by_account(source, a_county(release=1, deletes=0.02, inserts=0.02), tmp_path / "1")
    after, second = rows_by_account(source, a_county(release=2, deletes=0.02, inserts=0.02), tmp_path / "2")
    assert second["changes"] == {
        "inserted": len(after.keys() - before.keys()),
        "updated": sum(after[acct] != before[acct] for acct in after.keys() & before.keys()),
        "deleted": len(before.keys() - after.keys()),
    }
    assert all(count > 5 for count in second["changes"].values())
    assert second["kinds"] == first["kinds"], "bad records stay"


def test_release_without_changes_is_the_first_one():
    still = {"inserts": 0.0, "updates": 0.0, "deletes": 0.0}
    assert content(a_county(release=3, **still)) == content(a_county(**still))


@pytest.mark.parametrize("place", ["first", "last", "none"])
def test_header_stands_where_it_is_asked_for_and_is_the_publisher_s(place):
    lines = content(a_county(rows=50, header=place, rates={})).split(b"\r\n")[:-1]
    with zipfile.ZipFile(EXAMPLE) as archive:
        published_header = archive.read("real_acct.txt").split(b"\r\n")[0]
    assert [number for number, line in enumerate(lines) if line == published_header] == {"first": [0], "last": [50], "none": []}[place]
    assert len(lines) == 50 + (place != "none")


def test_records_are_padded_as_the_publisher_s_are():
    with zipfile.ZipFile(EXAMPLE) as archive:
        real = archive.read("real_acct.txt").decode("cp1252").split("\r\n")[1].split("\t")
    made = content(a_county(rows=50, header="none", rates={})).decode("cp1252").split("\r\n")[0].split("\t")
    padded = [place for place, cell in enumerate(real) if cell != " " and cell.endswith(" ")]
    assert [len(made[place]) for place in padded] == [len(real[place]) for place in padded]
    assert "" in made and " " in made


def test_fixed_width_record_is_628_bytes_and_every_text_fits():
    lines = content(a_county(rows=3000, rates={}, form="fixed_width")).split(b"\r\n")[:-1]
    assert {len(line) for line in lines} == {628} == {REAL_ACCT.record_width}


def test_no_bad_records_where_none_are_asked_for(source, tmp_path):
    (report,), _, manifest = imported(source, a_county(rows=500, rates={}), tmp_path)
    assert (report.written, report.refused, manifest["kinds"]) == (500, {}, {})


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "make_table.py"), *arguments], cwd=cwd, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )


def test_command_writes_member_manifest_and_schemas_from_any_folder(tmp_path):
    done = run("out", "--rows", "200", "--bad", "nul=0.5", "--bad-rate", "0", "--manifest", "m.json", "--schemas", "s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert hashlib.sha256((tmp_path / "out" / "real_acct.txt").read_bytes()).hexdigest() == manifest["member"]["sha256"]
    assert set(manifest["kinds"]) == {"nul"} and 60 < manifest["kinds"]["nul"] < 140
    assert sorted(path.name for path in (tmp_path / "s" / "hcad").iterdir()) == ["real_acct.toml", "source.toml"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["real_acct.txt"]


def test_command_lists_the_kinds(tmp_path):
    done = run("--list", cwd=tmp_path)
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == list(KINDS)


@pytest.mark.parametrize(
    "arguments", [["out", "--bad", "gremlin=0.1"], ["out", "--bad-rate", "2"], ["out", "--rows", "0"], ["out", "--next", "1000"]]
)
def test_county_that_cannot_be_made_ends_with_2_and_writes_nothing(tmp_path, monkeypatch, arguments, capsys):
    monkeypatch.chdir(tmp_path)
    assert make_table.main(arguments) == 2
    assert capsys.readouterr().err.startswith("make_table: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["out", "--bad", "nul"], ["out", "--format", "csv"]])
def test_wrong_command_line_ends_with_2(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        make_table.main(arguments)
    assert ended.value.code == 2
    assert not list(tmp_path.iterdir())
