"""What tells one release of an archive from the next."""

from __future__ import annotations

import itertools

import pytest

from pipeline.download.fingerprint import VALIDATORS, agrees, fingerprint
from pipeline.errors import DownloadRefused

TAG, DAY, SIZE, DATE = '"a"', "Sat, 26 Sep 2026 10:00:00 GMT", 10, "September 20, 2026"


def test_strong_entity_tag_counts_alone() -> None:
    assert fingerprint(TAG, DAY, SIZE) == fingerprint(TAG, None, 11)
    assert fingerprint(TAG, DAY, SIZE) != fingerprint('"b"', DAY, SIZE)


def test_without_a_strong_tag_time_and_length_count() -> None:
    first = fingerprint('W/"a"', DAY, SIZE)
    assert first == fingerprint(None, f" {DAY} ", SIZE) == fingerprint('W/"b"', DAY, SIZE)
    assert len({first, fingerprint(None, "Sun", SIZE), fingerprint(None, DAY, 11), fingerprint(None, DAY, None)}) == 4


def test_weak_tag_counts_where_there_is_no_time() -> None:
    assert fingerprint('W/"a"', None, SIZE) != fingerprint('W/"b"', None, SIZE)
    assert fingerprint(None, None, SIZE) != fingerprint(None, None, 11)


def test_nothing_stated_is_refused() -> None:
    for etag, modified in itertools.product((None, "", "W/"), (None, " ")):
        with pytest.raises(DownloadRefused, match="neither ETag nor Last-Modified nor Content-Length"):
            fingerprint(etag, modified, None)


def test_fingerprint_stays_what_it_is() -> None:
    """Written down: file names carry it, so that another value would download every archive again."""
    assert fingerprint('"v1"', None, 1) == "e-66d9ebbeac1c"
    assert fingerprint(None, DAY, 1) == "mb-1a67abebe5e7"
    assert fingerprint('"v1"', DAY, 1, rule=["etag", "listing"], listed=DATE) == "el-66d9ebbeac1c-f9f00db8694e"
    assert fingerprint(None, None, None, rule=["listing"], listed=DATE) == "l-0-f9f00db8694e"


@pytest.mark.parametrize("rule", [names for n in range(1, 5) for names in itertools.combinations(VALIDATORS, n)], ids=" ".join)
def test_declared_rule_counts_each_validator_it_names_and_no_other(rule: tuple[str, ...]) -> None:
    values = {"etag": TAG, "last_modified": DAY, "bytes": SIZE, "listing": DATE}
    others = {"etag": '"b"', "last_modified": "Sun", "bytes": 11, "listing": "September 27, 2026"}

    def mark(stated: dict[str, object]) -> str:
        return fingerprint(
            stated["etag"], stated["last_modified"], stated["bytes"], rule=rule, listed=stated["listing"]  # type: ignore[arg-type]
        )  # fmt: skip

    first = mark(values)
    for name in VALIDATORS:
        assert (mark(values | {name: others[name]}) != first) == (name in rule)
        if name in rule:
            with pytest.raises(DownloadRefused, match=f"states no {name}"):
                mark(values | {name: None})
    assert mark(values) == fingerprint(TAG, DAY, SIZE, rule=tuple(reversed(rule)), listed=DATE)


@pytest.mark.parametrize("rule", [(), ("etag",), ("last_modified",), ("last_modified", "bytes"), ("etag", "listing")], ids=" ".join)
def test_download_agrees_with_the_probe_it_was_made_from_and_with_no_other(rule: tuple[str, ...]) -> None:
    mark = fingerprint(TAG, DAY, SIZE, rule=rule, listed=DATE)
    assert agrees(mark, TAG, DAY, SIZE)
    assert not agrees(mark, '"b"', "Sun", SIZE)


def test_length_that_only_the_download_states_makes_no_difference() -> None:
    """Some servers state the length in the answer to GET and not to HEAD."""
    assert agrees(fingerprint(None, DAY, None), None, DAY, SIZE)
    assert not agrees(fingerprint(None, DAY, None), None, "Sun", SIZE)
    assert not agrees(fingerprint(None, DAY, SIZE), None, DAY, None)


def test_listing_alone_leaves_the_servers_answer_out() -> None:
    assert agrees(fingerprint(None, None, None, rule=["listing"], listed=DATE), TAG, DAY, SIZE)


@pytest.mark.parametrize("mark", ["", "e-", "x-13b8e8a4acd1", "13b8e8a4acd1", "e-13b8e8a4acd1-", "e-0", "../e-13b8e8a4acd1"])
def test_text_in_another_form_agrees_with_nothing(mark: str) -> None:
    assert not agrees(mark, TAG, DAY, SIZE)
