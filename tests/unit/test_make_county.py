"""scripts/make_county.py: its files, read here line by line, are what its manifest says, and what is known of HCAD's."""

import json
import re
import sys
import tempfile
import zipfile
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import make_county  # noqa: E402
from whole_county.codebook import members  # noqa: E402
from whole_county.county import County  # noqa: E402
from whole_county.release import write_release  # noqa: E402

ODD = {
    "short_line": 0.01,
    "lost_zeros": 0.005,
    "undefined_byte": 0.01,
    "duplicate": 0.01,
    "conflict": 0.01,
    "repeat": 0.02,
    "pending": 0.02,
}
STRONG = {"vanish": 0.03, "split": 0.03, "sale": 0.05, "review": 0.08}
UNDEFINED = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")


class Read:
    """A table read with nothing but ``split``: what is refused, what repeats, what is left."""

    def __init__(self, archive, table, key):
        content = archive.read(f"{table}.txt")
        assert content.endswith(b"\r\n")
        header = "\t".join(members()[table].columns).encode() if table in members() else content.split(b"\r\n")[0]
        lines = content[:-2].split(b"\r\n")
        self.headers = [place for place, line in enumerate(lines) if line == header]
        lines = [line for line in lines if line != header]
        self.header, self.read, self.refused, self.rows = header.decode().split("\t"), len(lines), Counter(), []
        self.duplicate = self.conflicting = 0
        wide = {"t_": 7}.get(table[:2], 7 if table.endswith("_pp") else 13)
        account, by_key = re.compile(rf"\d{{{wide}}} *$".encode()), {}
        for line in lines:
            cells = line.split(b"\t")
            if len(cells) != len(self.header):
                self.refused["*:field_count"] += 1
            elif UNDEFINED.search(line):
                self.refused["*:encoding"] += 1
            elif self.header[0] == "acct" and not account.match(cells[0]):
                self.refused["acct:regex"] += 1
            else:
                row = dict(zip(self.header, (cell.decode("cp1252").strip() for cell in cells), strict=True))
                if key:
                    first = by_key.setdefault(tuple(row[name] for name in key), row)
                    if first is not row:
                        self.duplicate += first == row
                        self.conflicting += first != row
                        continue
                self.rows.append(row)
        self.key = key

    def changes(self, before):
        if not self.key:
            now, was = (Counter(tuple(row.values()) for row in read.rows) for read in (self, before))
            return {"inserted": (now - was).total(), "updated": 0, "deleted": (was - now).total()}
        now, was = ({tuple(row[name] for name in self.key): row for row in read.rows} for read in (self, before))
        return {
            "inserted": len(now.keys() - was.keys()),
            "updated": sum(now[key] != was[key] for key in now.keys() & was.keys()),
            "deleted": len(was.keys() - now.keys()),
        }


def tables_of(folder, year):
    made = {}
    for path in sorted((folder / str(year)).glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                table = name.removesuffix(".txt")
                made[table] = Read(archive, table, members()[table].key if table in members() else ("tax_dist",))
    return made


@pytest.fixture(scope="module")
def county(tmp_path_factory):
    """Two releases of a small county with more oddities than there are: manifests and tables."""
    folder = tmp_path_factory.mktemp("county")
    shares = [f"--quirk={name}={share}" for name, share in ODD.items()]
    assert (
        make_county.main([str(folder / "1"), "--accounts", "500", "--seed", "5", *shares, "--header=owners=none", "--header=land=last"])
        == 0
    )
    assert (
        make_county.main([str(folder / "2"), "--next", str(folder / "1"), *(f"--event={name}={share}" for name, share in STRONG.items())])
        == 0
    )
    manifests = [json.loads((folder / name / "manifest.json").read_text()) for name in "12"]
    return manifests, [tables_of(folder / name, 2026) for name in "12"]


def test_every_line_of_every_table_is_in_its_manifest(county):
    for manifest, tables in zip(*county, strict=True):
        assert tables.keys() == manifest["tables"].keys()
        for name, table in tables.items():
            stated = manifest["tables"][name]
            assert table.headers == {"owners": [], "land": [table.read]}.get(name, [0])
            seen = (table.read, len(table.rows), dict(table.refused), table.duplicate, table.conflicting)
            assert seen == tuple(stated[what] for what in ("read", "written", "refused", "duplicate", "conflicting")), name
            assert stated["read"] == stated["written"] + stated["quarantined"] + stated["duplicate"]
            assert stated["distinct"]["count"] == len({tuple(row[column] for column in stated["distinct"]["of"]) for row in table.rows}), (
                name
            )
    first = county[0][0]["tables"].values()
    for what in ("duplicate", "conflicting"):
        assert sum(table[what] for table in first) > 10
    assert {rule for table in first for rule in table["refused"]} == {"*:field_count", "acct:regex", "*:encoding"}


def test_sums_are_those_of_the_rows_that_are_published(county):
    for manifest, tables in zip(*county, strict=True):
        for name, table in tables.items():
            for column, total in manifest["tables"][name]["sums"].items():
                numbers = [Decimal(row[column]) for row in table.rows if row[column] not in ("", "Pending")]
                assert (sum(numbers), len(numbers)) == (Decimal(total), manifest["tables"][name]["values"][column]), (name, column)


def test_next_release_changes_exactly_the_rows_that_its_manifest_says(county):
    manifests, (before, now) = county
    for name, table in now.items():
        assert manifests[1]["tables"][name]["changes"] == table.changes(before[name]), name
    assert all(count > 10 for count in manifests[1]["tables"]["real_acct"]["changes"].values())
    assert manifests[1]["tables"]["desc_r_01_state_class"]["changes"] == {"inserted": 0, "updated": 0, "deleted": 0}
    assert all(not any(table["changes"].values()) for table in manifests[0]["tables"].values())


def test_rows_hang_under_accounts_that_are_there_and_codes_are_described(county):
    for tables in county[1]:
        lost = 25  # lines of the accounts' own tables that are refused
        accounts = {row["acct"] for row in tables["real_acct"].rows}
        businesses = {row["acct"] for row in tables["t_business_acct"].rows}
        for name, table in tables.items():
            if table.header[0] == "acct":
                known = businesses if name.startswith("t_") or name.endswith("_pp") else accounts
                assert len({row["acct"] for row in table.rows} - known) <= lost, name
        for name, column, described, code in (
            ("real_acct", "state_class", "desc_r_01_state_class", "Code"), ("real_acct", "Neighborhood_Code", "real_neighborhood_code", "cd"),
            ("real_acct", "school_dist", "desc_r_20_school_district", "Code"), ("building_res", "impr_tp", "desc_r_02_building_type_code", "Type"),
            ("fixtures", "type", "desc_r_05_building_data_elements", "Code"), ("exterior", "sar_cd", "desc_r_09_subarea_type", "Type"),
            ("extra_features_detail2", "cd", "desc_r_10_extra_features", "Code"), ("jur_value", "tax_district", "desc_r_12_real_jurisdictions", "Code"),
            ("jur_exempt", "exempt_cat", "jur_exemption_dscr", "exempt_cat"), ("land", "use_cd", "desc_r_15_land_usecode", "Code"),
            ("permits", "permit_type", "desc_r_19_permit_code", "Code"), ("t_business_acct", "sic", "desc_t_03_sic_code", "Type"),
        ):  # fmt: skip
            assert {row[column] for row in tables[name].rows} <= {row[code] for row in tables[described].rows}, (name, column)


def test_amounts_add_up_over_the_tables():
    """An account's values are those of its lines, and its taxable values what its exemptions leave."""
    tables = made(County(400, quirks=dict.fromkeys([*ODD, "no_year", "huge_area"], 0.0)))
    sums = defaultdict(Counter)
    for name, column, total in (
        ("land", "val", "land_val"), ("building_res", "dpr_val", "bld_val"), ("building_other", "Depr_Val", "bld_val"),
        ("extra_features_detail1", "asd_val", "x_features_val"), ("extra_features_detail2", "asd_val", "x_features_val"), ("land_ag", "val", "ag_val"),
        ("building_res", "im_sq_ft", "bld_ar"), ("building_other", "im_sq_ft", "bld_ar"),
    ):  # fmt: skip
        for row in tables[name].rows:
            sums[total][row["acct"]] += int(row[column])
    for row in tables["real_acct"].rows:
        assert {total: int(row[total]) for total in sums} == {total: sums[total][row["acct"]] for total in sums}
        if row["state_class"] != "G1":
            assert int(row["tot_mkt_val"]) == int(row["land_val"]) + int(row["bld_val"]) + int(row["x_features_val"])
    exempt, districts = Counter(), {row["acct"]: row["jurs"].split() for row in tables["real_acct"].rows}
    for row in tables["jur_exempt"].rows:
        exempt[row["acct"], row["tax_district"]] += int(row["exempt_val"])
    disagreeing = 0
    for row in tables["jur_value"].rows:
        assert row["tax_district"] in districts[row["acct"]]
        disagreeing += int(row["taxable_val"]) != max(int(row["appraised_val"]) - exempt[row["acct"], row["tax_district"]], 0)
    assert disagreeing <= len(tables["jur_value"].rows) * 0.01


def made(county):
    """The tables of a county."""
    with tempfile.TemporaryDirectory() as folder:
        write_release(county, Path(folder))
        return tables_of(Path(folder), county.year)


#: Rows an account and bytes a row, as counted of HCAD's files of 2025 and 2026 (protests of 2019).
COUNTED = {
    "real_acct": (1, 522), "owners": (1.1, 46), "building_res": (0.810, None), "building_other": (0.0977, None), "fixtures": (4.938, None),
    "extra_features_detail1": (0.5856, None), "extra_features_detail2": (0.2222, None), "t_business_acct": (0.1248, None), "t_jur_value": (0.921, None),
    "real_mnrl": (0.00446, 41), "real_neighborhood_code": (0.00746, 28), "arb_protest_real": (0.2606, 31),
}  # fmt: skip


def test_rows_an_account_and_bytes_a_row_are_those_counted_of_the_real_files(tmp_path):
    manifest = write_release(County(12_000, seed=2), tmp_path)
    tables = manifest["tables"]
    for name, (rows, size) in COUNTED.items():
        assert tables[name]["read"] / 12_000 == pytest.approx(rows, rel=0.1), name
        if size:
            assert tables[name]["member"]["bytes"] / tables[name]["read"] == pytest.approx(size, rel=0.1), name
    assert 14.6e6 <= (tables["jur_value"]["read"] + tables["jur_exempt"]["read"]) * 1_628_134 / 12_000 <= 17e6
    building_land = sum(table["member"]["bytes"] for table in tables.values() if table["archive"] == "Real_building_land")
    assert building_land * 1_628_134 / 12_000 == pytest.approx(2.3e9, rel=0.1)
    homes, kept = mix(tmp_path), ("A1", "A2", "A4", "E1")
    assert sum(homes["real_acct", one] for one in kept) / 12_000 == pytest.approx(1_173_980 / 1_628_134, rel=0.03)
    assert sum(homes["building_res", one] for one in kept) / tables["building_res"]["read"] == pytest.approx(
        1_202_732 / 1_318_785, rel=0.03
    )
    assert sum(count for (table, codes), count in homes.items() if table == "jur_exempt_cd" and "RES" in codes) / 12_000 == pytest.approx(
        871_646 / 1_628_134, rel=0.03
    )
    assert 40e6 < manifest["rows"] * 1_628_134 / 12_000 < 51e6


def mix(folder):
    """How many rows have which class of use, or list of exemptions."""
    counted = Counter()
    for archive, table, place in (
        ("Real_acct_owner", "real_acct", 20),
        ("Real_building_land", "building_res", 1),
        ("Real_jur_exempt", "jur_exempt_cd", 1),
    ):
        with zipfile.ZipFile(folder / "2026" / f"{archive}.zip") as opened:
            lines = [line.split("\t") for line in opened.read(f"{table}.txt").decode("cp1252", "replace").split("\r\n")]
        counted.update((table, cells[place]) for cells in lines[1:] if len(cells) > place)
    return counted


def test_accounts_stand_in_the_order_of_their_numbers(county):
    for tables in county[1]:
        numbers = [row["acct"] for row in tables["real_acct"].rows]
        assert numbers == sorted(numbers)
        assert {"4000", "6000"} < {number[:4] for number in numbers}


def test_all_tables_of_the_codebook_have_its_header(county):
    current = county[1][0]
    before = made(County(60, year=2023, is_current=False))
    assert {
        name for name, table in {**before, **current}.items() if table.header == list(members()[name].columns if name in members() else ())
    } == set(members())
    assert "t_pp_e" in before and "real_mnrl" not in before and "extra_features_detail1" not in before
    assert {len(table.header) for name, table in before.items() if "exempt_value" in name or "percent_rate" in name} == {45, 36}
    assert any(row["type"] == "FXT" for row in before["fixtures"].rows) and not any(
        row["type"] == "FXT" for row in current["fixtures"].rows
    )


def test_oddities_of_the_real_files_are_there(tmp_path):
    write_release(County(1_500, quirks={"quote": 0.02, "high_byte": 0.02, "nul": 0.1, "pending": 0.02, "no_date": 0.05}), tmp_path)
    read = {}
    for path in (tmp_path / "2026").glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            read |= {name.removesuffix(".txt"): archive.read(name) for name in archive.namelist()}
    rows = [line.split(b"\t") for line in read["real_acct"].split(b"\r\n")[1:-1]]
    assert [len(rows[0][place]) for place in (0, 10, 12, 21, 30, 32, 35)] == [25, 2, 3, 5, 5, 5, 20]
    assert b'"' in read["real_acct"] and b'"' in read["building_res"] and b"12/30/1899" in read["real_acct"]
    assert {b" ", b""} <= {cell for row in rows for cell in row}, "an empty text is one blank, and NULL is nothing"
    assert re.search(rb"[\x80-\xff]", read["real_acct"]) and re.search(rb"[\x80-\xff]", read["building_res"])
    assert not any(re.search(rb"[\x80-\xff]", content) for name, content in read.items() if name not in ("real_acct", "building_res"))
    assert b"\0" in read["jur_tax_dist_exempt_value_rate"] and b"\tPending\r\n" in read["jur_exempt"]
    assert b"\tRMB \t" in read["fixtures"] and b"RES V" in read["jur_exempt_cd"]
    exterior = read["exterior"].split(b"\r\n")
    assert len(exterior) > len(set(exterior)), "equal rows are real"


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_release(County(60, seed=seed), tmp_path / name)
    archives = [{path.name: path.read_bytes() for path in (tmp_path / name / "2026").iterdir()} for name in "abc"]
    assert archives[0] == archives[1]
    assert archives[0]["Real_acct_owner.zip"] != archives[2]["Real_acct_owner.zip"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["out", "--accounts", "0"],
        ["out", "--quirk", "gremlin=1"],
        ["out", "--quirk", "nul=2"],
        ["out", "--event", "sale=0.1"],
        ["out", "--next", "none"],
    ],
)
def test_county_that_cannot_be_made_ends_with_2_and_writes_nothing(tmp_path, monkeypatch, arguments, capsys):
    monkeypatch.chdir(tmp_path)
    assert make_county.main(arguments) == 2
    assert capsys.readouterr().err.startswith("make_county: ")
    assert not list(tmp_path.iterdir())
