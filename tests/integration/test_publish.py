"""Publishing: only what differs is written, each write is remembered, and it can all be taken back."""

import dataclasses
import threading
from collections import Counter
from decimal import Decimal

import pytest
from county import FEATURE, ORIGIN, OWNER

from pipeline.catalog.model import Gate
from pipeline.database.engine import transaction
from pipeline.errors import AccountingError, GateRefused, ReleaseHeld, RollbackRefused, StagingStale
from pipeline.load.changes import value_changes
from pipeline.load.checkpoints import Origin

A = [("1", "ANN", Decimal("10.00")), ("2", "BOB", Decimal("20.00")), ("3", None, None)]
B = [("1", "ANN", Decimal("11.00")), ("3", None, None), ("4", "DAN", Decimal("40.00"))]
POOLS = [("1", "POOL"), ("1", "POOL"), ("2", "SHED")]


def test_first_release_is_loaded_whole_and_keeps_no_row_history(world):
    changes = world.publish("a", A, POOLS)
    assert (changes["owner"].inserted, changes["feature"].inserted) == (3, 3)
    assert world.rows("select acct, name, value from county.owner order by acct") == A
    assert world.rows("select acct, seq, code from county.feature order by 1, 2") == [("1", 1, "POOL"), ("1", 2, "POOL"), ("2", 1, "SHED")]
    assert world.rows("select count(*) from history.county_owner") == [(0,)]
    assert world.leftovers() == ([], [0, 0, 0])


def test_only_rows_that_differ_are_written_with_their_before_images(world):
    world.publish("a", A, POOLS)
    unchanged = world.rows("select ctid, xmin from county.owner where acct = '3'")
    changes = world.publish("b", B, POOLS)["owner"]
    assert (changes.inserted, changes.updated, changes.deleted) == (1, 1, 1)
    assert world.rows("select ctid, xmin from county.owner where acct = '3'") == unchanged
    history = world.rows("select operation, acct, etl.before_image(import_id, 'owner', before_image) ->> 'value' from history.county_owner order by acct")
    assert history == [("U", "1", "10.00"), ("D", "2", "20.00"), ("I", "4", None)]


def test_same_release_again_writes_nothing(world):
    world.publish("a", A, POOLS)
    assert world.loads.publish(world.key("a"), world.county) == {}
    changes = world.publish("a2", A, POOLS)
    assert all(written == type(written)() for written in changes.values())


def test_keyless_table_changes_by_its_multiset_alone(world):
    world.publish("a", A, POOLS)
    kept = world.rows("select acct, seq, code, xmin from county.feature where acct = '2' or seq = 1 order by 1, 2")
    changes = world.publish("b", A, [("2", "SHED"), ("1", "POOL"), ("1", "SPA"), ("1", "SPA")])["feature"]
    assert (changes.inserted, changes.updated, changes.deleted) == (2, 0, 1)
    assert Counter(world.rows("select acct, code from county.feature")) == Counter({("1", "POOL"): 1, ("1", "SPA"): 2, ("2", "SHED"): 1})
    now = world.rows("select acct, seq, code, xmin from county.feature where acct = '2' or seq = 1 order by 1, 2")
    assert now == kept


def test_shuffled_keyless_file_writes_nothing(world):
    world.publish("a", A, POOLS)
    changes = world.publish("b", A, [POOLS[2], POOLS[0], POOLS[1]])["feature"]
    assert (changes.inserted, changes.updated, changes.deleted) == (0, 0, 0)


def test_more_copies_of_a_live_row_are_made_from_the_live_one(world):
    world.publish("a", A, [("1", "POOL")])
    world.publish("b", A, [("1", "POOL")] * 4)
    assert world.rows("select seq, code from county.feature order by 1") == [(n, "POOL") for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_content_is_the_same_however_the_member_is_cut(world, parts):
    owners = [(str(n), f"N{n}", Decimal(n)) for n in range(30)]
    features = [(str(n % 5), f"C{n % 3}") for n in range(30)]
    cut = [owners[n::1][:0] for n in range(0)] or [owners[n * 30 // parts : (n + 1) * 30 // parts] for n in range(parts)]
    pieces = [features[n * 30 // parts : (n + 1) * 30 // parts] for n in range(parts)]
    world.publish("a", cut, pieces)
    assert Counter(world.rows("select acct, name, value from county.owner")) == Counter(owners)
    assert Counter(world.rows("select acct, code from county.feature")) == Counter(features)
    seqs = world.rows("select acct, array_agg(seq order by seq) from county.feature group by acct")
    assert all(list(numbers) == list(range(1, 7)) for _, numbers in seqs)


def test_repeated_keys_over_parts_keep_the_first_line_and_account_for_the_others(world):
    key = world.key("a")
    first, other = ("1", "ANN", Decimal("1.00")), ("1", "EVE", Decimal("2.00"))
    settled = world.stage(key, OWNER, [[first, ("2", "BOB", None)], [other, first], [other]])
    assert (settled.rows_read, settled.rows_loaded, settled.quarantined, settled.duplicate) == (5, 2, 1, 2)
    assert settled.conflicting == 1
    refused = world.rows("select line, raw, reasons from etl.quarantine")
    assert refused == [(3, "raw line 3", {"acct": ["line 1 has the same key with other values"]})]
    world.stage(key, FEATURE, [POOLS])
    world.loads.check_release(key, world.county)
    world.loads.publish(key, world.county)
    assert world.rows("select name from county.owner order by acct") == [("ANN",), ("BOB",)]


def test_rollback_restores_the_content_exactly_and_twice_is_a_no_op(world):
    world.publish("a", A, POOLS)
    before = (
        world.hashes(),
        world.rows("select * from county.owner order by acct"),
        world.rows("select * from county.feature order by acct, seq"),
    )
    world.publish("b", B, [("9", "BARN")])
    assert world.hashes() != before[0]
    (newest,) = world.rows("select import_id from etl.import where state = 'published'")
    world.loads.rollback_import(newest[0])
    assert before == (
        world.hashes(),
        world.rows("select * from county.owner order by acct"),
        world.rows("select * from county.feature order by acct, seq"),
    )
    assert world.loads.rollback_import(newest[0]) == {}
    assert world.rows("select release from etl.import where state = 'published'") == [("a",)]
    assert world.rows("select count(*) from history.county_owner") == [(0,)]


def test_rollback_goes_one_import_at_a_time_down_to_an_empty_year(world):
    for name, owners in (("a", A), ("b", B), ("c", A)):
        world.publish(name, owners, POOLS)
    ids = [row[0] for row in world.rows("select import_id from etl.import order by 1")]
    with pytest.raises(RollbackRefused, match="superseded"):
        world.loads.rollback_import(ids[0])
    for import_id in reversed(ids):
        world.loads.rollback_import(import_id)
    assert world.rows("select count(*) from county.owner") == [(0,)]
    assert world.rows("select count(*) from etl.import where state = 'published'") == [(0,)]


def test_rolled_back_release_is_held_until_a_person_accepts_it(world):
    world.publish("a", A, POOLS)
    world.publish("b", B, POOLS)
    (newest,) = world.rows("select import_id from etl.import where state = 'published'")[0]
    world.loads.rollback_import(newest)
    with pytest.raises(ReleaseHeld, match=f"import {newest}"):
        world.loads.open_import(world.key("b"), OWNER)
    world.loads.accept_import(newest, reason="it was right after all")
    world.publish("b", B, POOLS)
    assert world.rows("select acct from county.owner order by 1") == [("1",), ("3",), ("4",)]


def test_releases_and_recipes_that_come_back_are_published_again(world):
    for release, recipe, owners in (("a", "r1", A), ("b", "r1", B), ("a", "r1", A), ("a", "r2", B), ("a", "r1", A)):
        world.publish(release, owners, POOLS, recipe=recipe)
        assert world.rows("select release, recipe from etl.import where state = 'published'") == [(release, recipe)]
        assert [row[0] for row in world.rows("select acct from county.owner order by 1")] == [owner[0] for owner in owners]
    assert world.rows("select count(*) from etl.import") == [(5,)]


def test_gate_refuses_before_anything_is_visible_and_accept_publishes_what_was_staged(world):
    world.publish("a", A, POOLS)
    before = world.hashes()
    strict = type(world.county)(**{**world.county.__dict__, "gate": type(world.county.gate)({"owner": 3}, 1.0, 1.0)})
    key = world.key("b")
    world.stage(key, OWNER, [B[:2]])
    world.stage(key, FEATURE, [POOLS])
    with pytest.raises(GateRefused, match="owner rows: 2, expected at least 3"):
        world.loads.check_release(key, strict)
    assert world.hashes() == before
    with pytest.raises(ReleaseHeld):
        world.loads.open_import(key, OWNER)
    (refused,) = world.rows("select import_id from etl.import where state = 'refused'")[0]
    world.loads.accept_import(refused, reason="the district merged accounts")
    world.loads.check_release(key, strict)
    world.loads.publish(key, strict)
    assert world.rows("select count(*) from county.owner") == [(2,)]
    assert world.rows("select action, reason from etl.decision") == [("accept", "the district merged accounts")]


def test_staging_whose_base_moved_starts_again(world):
    world.publish("a", A, POOLS)
    late = world.key("b")
    world.stage(late, OWNER, [B])
    world.publish("c", A[:1], POOLS)
    with pytest.raises(StagingStale):
        world.loads.stage_part(late, FEATURE, world.part(FEATURE, POOLS), origin=ORIGIN)
    world.publish("b", B, POOLS)
    assert world.rows("select acct from county.owner order by 1") == [("1",), ("3",), ("4",)]


def test_unchanged_table_is_not_staged_and_a_missing_member_is_carried_over(world):
    world.publish("a", A, POOLS)
    key = world.key("b")
    world.loads.open_import(key, OWNER)
    assert world.loads.keep_table(key, OWNER, member_sha256="a-owner", recipe="t1").disposition == "unchanged"
    assert world.loads.keep_table(key, FEATURE, member_sha256="another", recipe="t1") is None
    assert world.loads.keep_table(key, FEATURE, member_sha256="a-feature", recipe="t2") is None
    assert world.loads.keep_table(key, FEATURE, member_sha256=None, recipe="t1").disposition == "carried_over"
    world.loads.check_release(key, world.county)
    world.loads.publish(key, world.county)
    assert world.rows("select count(*) from county.feature") == [(3,)]
    # What was carried over is still what its member made: the same member offered again is unchanged.
    again = world.key("c")
    world.loads.open_import(again, FEATURE)
    assert world.loads.keep_table(again, FEATURE, member_sha256="a-feature", recipe="t1").disposition == "unchanged"


def test_values_survive_copy_and_history_byte_for_byte(world):
    odd = ['"', '""', "\\N", "\\.", "a,b", "it's", "  x", "\u00e9\u20ac", "\U0001f3e0", "\\t", "{}", "a\u0085b"]
    rows = [(str(n), value, None) for n, value in enumerate(odd)]
    world.publish("a", rows, POOLS)
    assert Counter(world.rows("select acct, name, value from county.owner")) == Counter(rows)
    before = world.hashes()
    world.publish("b", [("x", "gone", None)], POOLS)
    world.loads.rollback_import(world.rows("select max(import_id) from etl.import")[0][0])
    assert world.hashes() == before
    assert Counter(world.rows("select acct, name, value from county.owner")) == Counter(rows)


def test_acceptance_outlives_the_staging_that_was_refused(world):
    strict = dataclasses.replace(world.county, gate=Gate({"owner": 3}, 1.0, 1.0))
    key = world.key("b")
    for table, rows in ((OWNER, B[:2]), (FEATURE, POOLS)):
        world.stage(key, table, [rows])
    with pytest.raises(GateRefused):
        world.loads.check_release(key, strict)
    world.publish("c", A, POOLS)
    world.loads.accept_import(1, reason="looked at")
    with pytest.raises(StagingStale):
        world.loads.publish(key, strict)
    for table, rows in ((OWNER, B[:2]), (FEATURE, POOLS)):
        world.stage(key, table, [rows])
    world.loads.check_release(key, strict)
    world.loads.publish(key, strict)
    assert world.rows("select count(*) from county.owner") == [(2,)]


def test_late_task_does_not_reopen_what_is_current(world):
    world.publish("a", A, POOLS)
    assert world.loads.open_import(world.key("a"), OWNER).state == "published"
    world.loads.refuse(world.key("a"), GateRefused("late", "nothing", "nothing"))
    assert world.rows("select state from etl.import") == [("published",)]
    assert world.leftovers() == ([], [0, 0, 0])


@pytest.mark.fault(61)
def test_publishers_and_a_rollback_at_once_do_not_deadlock(world):
    world.publish("a", A, POOLS)
    for name, owners in (("b", B), ("c", A), ("d", B)):
        key, outcomes = world.key(name), []
        for table, rows in ((OWNER, owners), (FEATURE, POOLS)):
            world.stage(key, table, [rows])
        world.loads.check_release(key, world.county)
        current = world.rows("select import_id from etl.import where state = 'published'")[0][0]

        def attempt(work, *arguments, outcomes=outcomes):
            try:
                outcomes.append(work(*arguments))
            except (StagingStale, RollbackRefused) as error:
                outcomes.append(error)

        work = [(world.loads.publish, key, world.county)] * 2 + [(world.loads.rollback_import, current)]
        threads = [threading.Thread(target=attempt, args=arguments) for arguments in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 3
        assert world.rows("select count(*) from etl.import where state = 'published'")[0][0] <= 1
        if world.rows("select count(*) from etl.import where state = 'published'") == [(0,)]:
            world.publish(f"{name}2", A, POOLS)


def test_column_that_the_user_added_and_postgresql_computes_survives_a_rollback(world):
    world.publish("a", A, POOLS)
    with transaction(world.engine) as cursor:
        cursor.execute("alter table county.owner add column loud text generated always as (upper(name) || '!') stored")
    before = world.rows("select * from county.owner order by acct")
    world.publish("b", B, POOLS)
    world.loads.rollback_import(2)
    assert world.rows("select * from county.owner order by acct") == before


def test_row_that_somebody_removes_between_staging_and_publish_is_missed(world):
    world.publish("a", A, POOLS)
    key = world.key("b")
    world.stage(key, OWNER, [A], origin=Origin("b-owner", "t1", "c1"))
    world.stage(key, FEATURE, [POOLS], origin=Origin("b-feature", "t1", "c1"))
    world.loads.check_release(key, world.county)
    with transaction(world.engine) as cursor:
        cursor.execute("delete from county.owner where acct = (select min(acct) from county.owner)")
    with pytest.raises(AccountingError, match="-1 are gone and 0 were deleted"):
        world.loads.publish(key, world.county)


def test_refresh_finds_the_hash_of_a_live_row_in_its_primary_key(world):
    world.publish("a", A, POOLS)
    keys = world.rows("select indexdef from pg_indexes where indexname in ('owner_2025_pkey', 'feature_2025_pkey') order by indexname")
    assert [key.split(" USING btree ")[1] for (key,) in keys] == [
        "(tax_year, acct, seq) INCLUDE (row_hash)", "(tax_year, acct) INCLUDE (row_hash)",
    ]


def test_users_column_with_a_percent_sign_lives_through_publish_diff_and_rollback(world):
    world.publish("a", A, POOLS)
    with transaction(world.engine) as cursor:
        cursor.execute('alter table county.owner add column "done %s 100%" text; update county.owner set "done %s 100%" = acct')
        cursor.execute('alter table county.feature add column "%(year)s" text')
    before = world.hashes(), world.rows("select * from county.owner order by acct")
    world.publish("b", B, POOLS[1:])
    assert list(value_changes(world.engine, 2, "owner"))
    world.loads.rollback_import(2)
    assert (world.hashes(), world.rows("select * from county.owner order by acct")) == before


def test_first_import_of_a_year_that_has_rows_already_writes_those_that_differ(world):
    world.publish("a", A, POOLS)
    whole = world.hashes()
    world.publish("b", B, POOLS[1:])
    with transaction(world.engine) as cursor:  # the ledger is lost, and the tables are not
        cursor.execute("truncate etl.import, etl.run cascade")
    changes = world.publish("a", A, POOLS)["owner"]
    assert (changes.updated, changes.inserted, changes.deleted) == (1, 1, 1)
    assert world.hashes() == whole
