"""Verification says of everything that was changed behind the pipeline's back what it is, and of nothing else."""

import hashlib
import zipfile
from dataclasses import replace

import pytest

from pipeline.catalog.model import Limits
from pipeline.catalog.recipe import layout_recipe
from pipeline.database.engine import transaction
from pipeline.errors import VerifyFailed
from pipeline.extract import ExtractManager, WantedMember
from pipeline.handoff import Receipt, write_json
from pipeline.load.checkpoints import Origin
from pipeline.verify import require_same, verify

LIMITS = Limits(10, 1 << 30, 300.0)


@pytest.fixture
def kept(world, tmp_path):
    """A published release with its archive, receipt and members; gives a function that verifies all of it."""
    world.county = replace(world.county, limits=LIMITS)
    state = tmp_path / "var"
    archives = state / "archives" / "county" / "2025"
    archives.mkdir(parents=True)
    archive = archives / "a-f1"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("owner.txt", "1\tone\t1.00\n")
        zipped.writestr("readme.txt", "what this is")
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    stated = {"url": "u", "file": archive.name, "sha256": sha256, "bytes": archive.stat().st_size, "fingerprint": "f1", "etag": None,
              "last_modified": None, "requests_made": 1, "fetched_at": "2025-01-01T00:00:00+00:00"}  # fmt: skip
    write_json(archives / "a-f1.receipt.json", Receipt.from_json(stated))
    members = state / "members" / "county" / "2025" / "a-f1-cut"
    ExtractManager(limits=LIMITS).extract_archive(archive, members, members=[WantedMember("owner.txt")], sha256=sha256)
    key = world.key("a")
    for table, rows in zip(world.county.tables, ([("1", "one", None), ("2", "two", None)], [("1", "x"), ("1", "x")]), strict=True):
        world.stage(key, table, [rows], origin=Origin("m1", layout_recipe(table, table.layouts[0]), "c1"))
    world.loads.check_release(key, world.county)
    world.loads.publish(key, world.county)

    def check():
        return {f"{one.kind} {one.name}": one for one in verify(world.engine, state, [(world.county, 2025)])}

    check.archive, check.members = archive, members
    return check


ARCHIVE, MEMBERS = "archive archives/county/2025/a-f1", "members members/county/2025/a-f1-cut"
OWNERS, FEATURES = "table county.owner 2025", "table county.feature 2025"


def wrong(found):
    return [name for name, one in found.items() if one.differences]


def test_all_as_recorded_is_said_of_each_thing_with_its_figures(kept):
    found = kept()
    assert list(found) == [ARCHIVE, MEMBERS, FEATURES, OWNERS]
    assert wrong(found) == []
    assert [found[name].count for name in (MEMBERS, OWNERS, FEATURES)] == [1, 2, 2]
    assert "2 members" in found[ARCHIVE].note
    assert all(one.line().startswith("as recorded") for one in found.values())
    require_same(found.values())


def test_changed_byte_of_an_archive_is_found_though_its_length_is_right(kept):
    content = bytearray(kept.archive.read_bytes())
    content[-1] ^= 1
    kept.archive.write_bytes(content)
    found = kept()
    assert wrong(found) == [ARCHIVE] and "sha256" in found[ARCHIVE].line()
    with pytest.raises(VerifyFailed, match="1 differ: archive archives/county/2025/a-f1"):
        require_same(found.values())


def test_archive_that_is_gone_and_receipt_that_cannot_be_read_are_found(kept):
    kept.archive.unlink()
    assert kept()[ARCHIVE].differences == ("its receipt is there, the archive is not",)
    kept.archive.with_name("a-f1.receipt.json").write_text("{")
    assert "receipt cannot be read" in kept()[ARCHIVE].differences[0]


def test_damage_that_the_publisher_sent_is_a_note(kept):
    content = bytearray(kept.archive.read_bytes())
    content[content.index(b"what this is")] ^= 1
    kept.archive.write_bytes(content)
    receipt = kept.archive.with_name("a-f1.receipt.json")
    receipt.write_text(receipt.read_text().replace(sha256_in(receipt), hashlib.sha256(content).hexdigest()))
    found = kept()
    assert "readme.txt" in found[ARCHIVE].note and not found[ARCHIVE].differences
    # The members were taken out of another archive than the one that lies there now.
    assert wrong(found) == [MEMBERS]


def sha256_in(receipt):
    return receipt.read_text().split('"sha256": "')[1][:64]


def test_changed_member_and_folder_without_manifest_are_found(kept):
    (kept.members / "owner.txt").write_text("1\tONE\t1.00\n")
    assert wrong(kept()) == [MEMBERS]
    (kept.members / "manifest.json").unlink()
    assert "no readable manifest.json" in kept()[MEMBERS].differences[0]


def test_row_that_somebody_changed_or_removed_is_counted(kept, world):
    with transaction(world.engine) as cursor:
        cursor.execute("update county.owner set name = 'someone' where acct = '2'")
    found = kept()
    assert wrong(found) == [OWNERS] and found[OWNERS].differences == ("1 rows are not what their hashes state",)
    with transaction(world.engine) as cursor:
        cursor.execute("delete from county.feature where seq = 1")
    assert kept()[FEATURES].differences == ("1 rows, where the ledger states 2",)


def test_table_whose_schema_file_changed_since_is_not_judged(kept, world):
    owner, feature = world.county.tables
    world.county = replace(world.county, tables=(replace(owner, on_conflict="refuse"), feature))
    assert "another schema file" in kept()[OWNERS].note
