"""HCAD's computed tables, value by value, against what a person computes by hand from the rows."""

import dataclasses
import datetime as dt
import os
import uuid
from decimal import Decimal

import plain_role
import pytest
from county import World

from pipeline.catalog import load_catalog
from pipeline.catalog.model import Gate
from pipeline.catalog.roll import rolls_for
from pipeline.database.ledger import ImportKey
from pipeline.load.checkpoints import Origin
from pipeline.verify import verify_rolls

HCAD = load_catalog(environ={**os.environ, "SAMPLE_SERVER_URL": "http://127.0.0.1:1"})["hcad"]
INPUTS = {one.table.name: one.table for roll in HCAD.rolls for one in roll.inputs}
YEAR = 2025
HOME, FLAT, SHOP, BARE = "0011110000001", "0011110000002", "0011110000003", "0011110000004"
DAY = dt.date(2025, 5, 30)

ROWS = {
    "real_acct": [
        {"acct": HOME, "yr": YEAR, "mailto": "ANN & BOB", "str_pfx": "N", "str_num": "12", "str_num_sfx": "A", "str": "WALL", "str_sfx": "ST",
         "str_sfx_dir": "W", "site_addr_1": "12 A N WALL ST", "site_addr_2": "HOUSTON", "site_addr_3": "77002-1234", "state_class": "A1",
         "neighborhood_code": "8400.10", "bld_ar": 2328, "land_ar": 5000, "acreage": Decimal("0.1148"), "cap_acct": "Y", "land_val": 75000,
         "bld_val": 200000, "assessed_val": 275000, "tot_appr_val": 250000, "tot_mkt_val": 275000, "prior_tot_appr_val": 230000,
         "prior_tot_mkt_val": 260000, "prior_land_val": 60000, "prior_bld_val": 200000, "new_construction_val": 0, "protested": True},
        {"acct": FLAT, "yr": YEAR, "str_num": "0", "str_pfx": "E", "str": "BAY", "str_sfx": "RD", "state_class": "A2", "cap_acct": "Pending",
         "tot_mkt_val": 90000},
        {"acct": SHOP, "yr": YEAR, "str_num": "7", "state_class": "F1", "cap_acct": "N", "tot_appr_val": 0, "tot_mkt_val": 5},
        {"acct": BARE, "yr": YEAR},
    ],
    "building_res": [
        {"acct": HOME, "bld_num": 1, "impr_tp": "1001", "impr_mdl_cd": "101", "structure": "R", "qa_cd": "B", "dscr": "Good",
         "date_erected": 2014, "eff": 2015, "im_sq_ft": 2328, "act_ar": 2400, "heat_ar": 2212, "gross_ar": 2500, "base_ar": 2328,
         "dpr_val": 190000},
        {"acct": HOME, "bld_num": 2, "impr_tp": "1002", "im_sq_ft": 400, "base_ar": 0, "heat_ar": 0},
        {"acct": FLAT, "bld_num": 1, "heat_ar": 700, "qa_cd": "C"},
        {"acct": FLAT, "bld_num": 1, "heat_ar": 800, "qa_cd": "D"},
        {"acct": "9999999999999", "bld_num": 1},
    ],
    "fixtures": [
        *({"acct": HOME, "bld_num": 1, "type": kind, "units": Decimal(units)}
          for kind, units in (("RMB", 3), ("RMF", 2), ("RMH", 1), ("STY", "1.5"), ("RMT", 9), ("FPW", 1), ("FPM", 1))),
        *({"acct": HOME, "bld_num": 2, "type": kind, "units": Decimal(0)} for kind in ("RMB", "RMF")),
        {"acct": FLAT, "bld_num": 1, "type": "RMB", "units": Decimal(1)},
        {"acct": FLAT, "bld_num": 1, "type": "RMB", "units": Decimal(2)},
        {"acct": FLAT, "bld_num": 1, "type": "RMF"},
    ],
    "structural_elem1": [
        {"acct": HOME, "bld_num": 1, "type": kind, "code": code, "category_dscr": words, "adj": adj and Decimal(adj)}
        for kind, code, words, adj in (
            ("XWR", "1", "Frame / Concrete Blk", "30.00"), ("XWR", "6", "Brick / Veneer", "77.70"), ("FND", "1", "Slab", "0.00"),
            ("PCR", "4", "Average", None), ("CDU", "5", "Good", "0.99"), ("HAC", "3", "Central Heat/AC", "8.00"),
        )
    ] + [{"acct": HOME, "bld_num": 2, "type": "CDU", "code": "3", "category_dscr": "Fair"}],
    "desc_r_05_building_data_elements": [
        {"code": "FPW", "description": "Fireplace: Masonry Firebrick"}, {"code": "FPM", "description": "Fireplace: Metal Prefab"},
        {"code": "RMB", "description": "Room:  Bedroom"}, {"code": "RMT", "description": "Room:  Total"},
    ],
    "extra_features_detail1": [
        {"acct": HOME, "bld_num": 1, "cd": "RRP5", "dscr": "Gunite Pool", "units": Decimal(368), "asd_val": 21000, "length": Decimal(23),
         "width": Decimal(16), "grade": "4", "cond_cd": "A", "act_yr": 2016},
        {"acct": HOME, "bld_num": 1, "cd": "RRP5", "dscr": "Gunite Pool", "units": Decimal(368), "asd_val": 21000, "length": Decimal(23),
         "width": Decimal(16), "grade": "4", "cond_cd": "A", "act_yr": 2016},
    ],
    "extra_features_detail2": [{"acct": SHOP, "bld_num": 0, "cd": "CPV1", "dscr": "Paving", "units": Decimal("1200.5"), "asd_val": 900}],
    "extra_features": [
        {"acct": HOME, "bld_num": 1, "cd": "RRP5", "l_dscr": "Gunite Pool", "count": 2, "uts": Decimal(368)},
        {"acct": FLAT, "bld_num": 1, "cd": "RRS1", "s_dscr": "WDUtSh", "l_dscr": "Frame Utility Shed", "cat": "OB", "count": 2, "grade": "4",
         "uts": Decimal(110)},
        {"acct": FLAT, "bld_num": 1, "cd": "RRG1", "s_dscr": "FrmGar", "count": 2, "uts": Decimal(225)},
        {"acct": "9999999999999", "cd": "RRG1"},
    ],
    "arb_hearings_real": [
        {"acct": HOME, "stated_tax_year": YEAR, "initial_appraised_value": 260000, "final_appraised_value": 240000, "initial_market_value": 280000,
         "final_market_value": 265000, "actual_hearing_date": dt.date(2025, 5, 20), "release_date": DAY},
        {"acct": HOME, "stated_tax_year": YEAR, "initial_appraised_value": 260000, "final_appraised_value": 250000,
         "release_date": dt.date(2025, 5, 1)},
        {"acct": FLAT, "stated_tax_year": YEAR, "initial_appraised_value": 90000, "final_appraised_value": 0, "scheduled_for_date": DAY},
        {"acct": SHOP, "stated_tax_year": YEAR - 1, "final_appraised_value": 1, "release_date": DAY},
    ],
    "parcel_centroid": [
        {"acct": acct, "x": Decimal(1), "y": Decimal(y), "latitude": Decimal(latitude), "longitude": Decimal("-95.37"), "area": Decimal(area)}
        for acct, y, latitude, area in ((HOME, 1, "29.71", 50), (HOME, 2, "29.72", 500), (HOME, 1, "29.73", 500), (SHOP, 1, "29.73", 500),
                                        ("9999999999999", 1, "29.75", 5))
    ],
    "jur_value": [
        {"acct": HOME, "tax_district": "040", "tp_cd": "C", "pct_district": Decimal(1), "appraised_val": 250000, "taxable_val": 150000},
        {"acct": HOME, "tax_district": "061", "appraised_val": 250000},
        {"acct": "9999999999999", "tax_district": "040"},
    ],
    "jur_exempt": [
        {"acct": HOME, "tax_district": "040", "exempt_cat": "RES", "exempt_val": 90000},
        {"acct": HOME, "tax_district": "040", "exempt_cat": "OVR", "exempt_val": 10000},
        {"acct": HOME, "tax_district": "099", "exempt_cat": "RES"},
    ],
}  # fmt: skip
SOURCE = dataclasses.replace(HCAD, tables=tuple(INPUTS.values()), gate=Gate({}, 1.0, 1.0))


def publisher(world):
    """A world that publishes releases of HCAD's tables: those of ``ROWS``, or others in their place."""

    def publish(release, **tables):
        key = ImportKey("hcad", YEAR, release, "r1")
        for name, table in INPUTS.items():
            rows = [tuple(row.get(column.name) for column in table.columns) for row in tables.get(name, ROWS.get(name, []))]
            for row in tables.get(name, ROWS.get(name, [])):
                assert set(row) <= {column.name for column in table.columns}
            world.stage(key, table, [rows], origin=Origin(f"{release}-{name}", "t1", "c1"))
        for roll in rolls_for(SOURCE, YEAR):
            world.loads.stage_roll(key, SOURCE, roll.table.name)
        world.loads.check_release(key, SOURCE)
        changes = world.loads.publish(key, SOURCE)
        assert [one.line() for one in verify_rolls(world.engine, [(SOURCE, YEAR)]) if one.differences or one.note] == []
        return changes

    world.publish_hcad = publish
    return world


@pytest.fixture(scope="module")
def published(server_url, tmp_path_factory):
    """A world in which ``ROWS`` are published, to be read."""
    with plain_role.database(server_url, f"test_{uuid.uuid4().hex[:12]}") as url:
        world = publisher(World(url, tmp_path_factory.mktemp("hcad")))
        world.publish_hcad("a")
        yield world
        world.engine.dispose()


def as_dicts(world, table, *, order="acct"):
    names = [name for (name,) in world.rows(
        "select column_name from information_schema.columns where table_schema = 'roll' and table_name = %s order by ordinal_position", table
    )]  # fmt: skip
    rows = world.rows(f"select * from roll.{table} where (source, tax_year) = ('hcad', 2025) order by {order}")
    own = {"source", "tax_year", "import_id", "row_hash", "seq"}
    return [{name: value for name, value in zip(names, row, strict=True) if name not in own} for row in rows]


def filled(row):
    return {name: value for name, value in row.items() if value is not None}


def test_property_has_owner_address_place_class_and_values(published):
    home, flat, shop, bare = as_dicts(published, "property")
    assert filled(home) == {
        "acct": HOME, "owner_name": "ANN & BOB", "address": "12 A N WALL ST", "street_number": "12", "street_name": "WALL ST",
        "city": "HOUSTON", "zipcode": "77002", "value": 250000, "appraised_value": 250000, "market_value": 275000, "assessed_value": 275000,
        "land_value": 75000, "improvement_value": 200000, "building_area": 2328, "land_area": 5000, "acreage": Decimal("0.1148"),
        "state_class": "A1", "neighborhood_code": "8400.10", "buildings": 2, "is_residential": True, "has_rooms": True,
        "latitude": Decimal("29.73"), "longitude": Decimal("-95.37"), "has_location": True, "is_data_ready": True,
    }  # fmt: skip
    # No line of its own: made of its parts, without the number 0. No appraised value: the market value.
    assert (flat["address"], flat["street_number"], flat["value"], flat["is_residential"]) == ("E BAY RD", None, 90000, True)
    # Bathrooms without a number are none.
    assert (flat["has_rooms"], flat["has_location"], flat["is_data_ready"]) == (False, False, False)
    # A number without a street is no address; 0 is a value; every account is there, homes or not.
    assert (shop["address"], shop["street_number"], shop["value"], shop["is_residential"]) == (None, "7", 0, False)
    assert filled(bare) == {"acct": BARE, "buildings": 0, **dict.fromkeys(("is_residential", "has_rooms", "has_location", "is_data_ready"), False)}


def test_building_has_every_attribute_from_where_hcad_has_it(published):
    home, shed, flat = as_dicts(published, "building", order="acct, bld_num")
    assert filled(home) == {
        "acct": HOME, "bld_num": 1, "building_type": "1001", "building_style": "101", "building_class": "R", "quality_code": "B",
        "quality": "Good", "condition_code": "4", "condition": "Average", "year_built": 2014, "effective_year": 2015, "heat_area": 2212,
        "base_area": 2328, "gross_area": 2500, "stories": Decimal("1.5"), "foundation_code": "1", "foundation": "Slab",
        "exterior_wall_code": "6", "exterior_wall": "Brick / Veneer", "bedrooms": 3, "full_baths": 2, "half_baths": 1,
        "bathrooms": Decimal("2.5"), "fireplaces": 2, "value": 190000,
    }  # fmt: skip
    # 0 stays 0 and what is not there is NULL; without PCR the condition is CDU's; the base area is im_sq_ft where base_ar is 0.
    assert filled(shed) == {
        "acct": HOME, "bld_num": 2, "building_type": "1002", "condition_code": "3", "condition": "Fair", "heat_area": 0, "base_area": 400,
        "bedrooms": 0, "full_baths": 0, "bathrooms": 0,
    }  # fmt: skip
    # Of two lines of one kind the last one wins, and they are not added up; of two buildings of one number the larger counts.
    assert filled(flat) == {"acct": FLAT, "bld_num": 1, "heat_area": 800, "quality_code": "D", "bedrooms": 2}


def test_extra_features_keep_every_instance_with_quantity_and_money_apart(published):
    pool, twin, shed, garage, paving = as_dicts(published, "extra_feature", order="acct, quantity, seq")
    assert pool == twin and filled(pool) == {
        "acct": HOME, "bld_num": 1, "feature_code": "RRP5", "description": "Gunite Pool", "quantity": 368, "value": 21000, "length": 23,
        "width": 16, "grade": "4", "condition_code": "A", "year_built": 2016, "published_in": "extra_features_detail1",
    }  # fmt: skip
    # Units are no dollars, and the number of an account's features is no quantity.
    assert filled(shed) == {
        "acct": FLAT, "bld_num": 1, "feature_code": "RRS1", "description": "Frame Utility Shed", "category": "OB", "quantity": 110,
        "grade": "4", "published_in": "extra_features",
    }  # fmt: skip
    assert (garage["description"], garage["value"]) == ("FrmGar", None)
    assert (paving["acct"], paving["quantity"], paving["value"], paving["published_in"]) == (
        SHOP, Decimal("1200.5"), 900, "extra_features_detail2",
    )  # fmt: skip


def test_assessment_history_takes_the_value_after_a_released_hearing(published):
    home, flat, shop, bare = as_dicts(published, "assessment_history")
    assert filled(home) == {
        "acct": HOME, "appraised_value": 240000, "market_value": 265000, "assessed_value": 275000, "roll_appraised_value": 250000,
        "roll_market_value": 275000, "noticed_appraised_value": 260000, "noticed_market_value": 280000, "final_appraised_value": 240000,
        "final_market_value": 265000, "prior_appraised_value": 230000, "prior_market_value": 260000, "prior_land_value": 60000,
        "prior_improvement_value": 200000, "new_construction_value": 0, "is_capped": True, "cap_status": "Y", "is_protested": True,
        "hearing_on": dt.date(2025, 5, 20), "hearing_released_on": DAY, "hearings": 2,
    }  # fmt: skip
    # A hearing to come has no value yet, and "Pending" is neither yes nor no.
    assert (flat["appraised_value"], flat["final_appraised_value"], flat["is_capped"], flat["hearing_on"]) == (None, None, None, DAY)
    assert (shop["appraised_value"], shop["is_capped"], shop["hearings"]) == (0, False, 0)
    assert filled(bare) == {"acct": BARE, "hearings": 0}


def test_coordinate_is_that_of_the_largest_polygon(published):
    """Of two equally large ones the lower; an account may share its place with another, and one that the roll does not have has none."""
    assert [tuple(row.values()) for row in as_dicts(published, "coordinate")] == [
        (HOME, Decimal("29.73"), Decimal("-95.37"), 3), (SHOP, Decimal("29.73"), Decimal("-95.37"), 1),
    ]  # fmt: skip


def test_tax_unit_values_have_exemptions_beside_them(published):
    assert [filled(row) for row in as_dicts(published, "tax_unit_value", order="acct, tax_unit")] == [
        {"acct": HOME, "tax_unit": "040", "tax_unit_type": "C", "share": 1, "appraised_value": 250000, "taxable_value": 150000,
         "exempt_value": 100000, "exemptions": "OVR RES"},
        {"acct": HOME, "tax_unit": "061", "appraised_value": 250000},
        {"acct": HOME, "tax_unit": "099", "exemptions": "RES"},
    ]  # fmt: skip


def test_change_in_any_input_reaches_the_rows_of_its_accounts_alone(world):
    hcad = publisher(world)
    hcad.publish_hcad("a")
    other = {
        "fixtures": [row for row in ROWS["fixtures"] if (row["acct"], row["type"]) != (HOME, "RMH")],
        "extra_features_detail1": ROWS["extra_features_detail1"][:1],
        "jur_exempt": [row for row in ROWS["jur_exempt"] if row["exempt_cat"] != "OVR"],
        "arb_hearings_real": ROWS["arb_hearings_real"][1:],
    }
    changes = hcad.publish_hcad("b", **other)
    written = {name: (one.inserted, one.updated, one.deleted) for name, one in changes.items() if name.startswith("roll_")}
    assert written == {
        "roll_property": (0, 0, 0), "roll_building": (0, 1, 0), "roll_extra_feature": (0, 0, 1), "roll_assessment_history": (0, 1, 0),
        "roll_tax_unit_value": (0, 1, 0), "roll_coordinate": (0, 0, 0),
    }  # fmt: skip
    assert as_dicts(hcad, "building", order="acct, bld_num")[0]["bathrooms"] == 2
    assert as_dicts(hcad, "assessment_history")[0]["appraised_value"] == 250000
    # A code that is a fireplace no more matters to every account.
    codes = [row for row in ROWS["desc_r_05_building_data_elements"] if row["code"] != "FPM"]
    changes = hcad.publish_hcad("c", **other, desc_r_05_building_data_elements=codes)
    assert changes["roll_building"].updated == 1 and as_dicts(hcad, "building", order="acct, bld_num")[0]["fireplaces"] == 1
