"""Headers as no server should send them: what reads them raises nothing of its own, and never reads what is not there."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from pipeline.download import DownloadManager
from pipeline.download.address import AddressRule
from pipeline.download.fingerprint import agrees, fingerprint
from pipeline.download.probe import total_of
from pipeline.download.redact import redact
from pipeline.download.request import joined_url
from pipeline.download.resume import PartState, complete, joined, url_identity
from pipeline.download.retry import retry_after_s
from pipeline.download.verify import Stated
from pipeline.errors import DownloadRefused, PipelineError

DAY, LATER = "Sat, 26 Sep 2026 10:00:00 GMT", "Sat, 26 Sep 2026 12:00:00 GMT"
#: As header values come from the wire: latin-1, without line ends.
GARBAGE = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=60)
NUMBERS = st.one_of(
    st.integers(-5, 10**6).map(str),
    st.sampled_from(["", " 7 ", "+7", "-0", "0x10", "1e3", "7, 7", "7.0", "²", "\u0667", "9" * 30, "9" * 5000, "00012", "nan", "inf"]),
)
DATES = st.one_of(
    st.sampled_from(
        [DAY, LATER, "Saturday, 26-Sep-26 10:00:00 GMT", "Sat Sep 26 10:00:00 2026", "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT",
         "Sat, 26 Sep 2026 10:00:00 -0000", "Sat, 26 Sep 2026 10:00:00 +9999", "Sat, 26 Sep 0000 10:00:00 GMT", "Sat, 99 Sep 2026 99:99:99 GMT", " ", "0"]
    ),
    GARBAGE,
)  # fmt: skip
TAGS = st.one_of(st.sampled_from(['"v1"', 'W/"v1"', "v1", '""', "W/", '"', " ", '"v1', "W/W/"]), GARBAGE)
RANGES = st.one_of(
    st.builds("{} {}-{}/{}".format, st.sampled_from(["bytes", "BYTES", "bites", ""]), NUMBERS, NUMBERS, st.one_of(NUMBERS, st.just("*"))),
    st.builds("bytes */{}".format, NUMBERS),
    GARBAGE,
)
HEADERS = {
    "Content-Length": st.one_of(NUMBERS, GARBAGE),
    "Content-Range": RANGES,
    "ETag": TAGS,
    "Last-Modified": DATES,
    "Date": DATES,
    "Retry-After": st.one_of(NUMBERS, DATES),
    "Content-Type": GARBAGE,
    "Content-Encoding": st.one_of(st.sampled_from(["gzip", "identity", "br", "zstd", "deflate", "gzip, gzip", "x-gzip", ", ".join(["gzip"] * 9)]), GARBAGE),
    "Transfer-Encoding": st.one_of(st.sampled_from(["chunked", "gzip, chunked", "identity"]), GARBAGE),
    "Accept-Ranges": st.one_of(st.sampled_from(["none", "bytes"]), GARBAGE),
}  # fmt: skip
LOCATIONS = st.one_of(
    GARBAGE,
    st.sampled_from(
        ["//", "http://", "http://[", "http://[::1", "http://\x00/", "http://a\x00b/", "https://x:99999/", "https://x:port/", "http://%00/", "file:///etc/passwd",
         "http://" + "a" * 70 + ".example/", "http://.example/", "http://\xff\xfe/", "?", "#", "http://127.0.0.1:1/", "//127.0.0.1:1/x", "http://user:pass@127.0.0.1:1/"]
    ),
)  # fmt: skip
MANY = settings(max_examples=150, deadline=None)


def stated(headers: dict[str, str]) -> Stated:
    response = requests.Response()
    response.headers = CaseInsensitiveDict(headers)
    return Stated.by(response)


@MANY
@given(st.fixed_dictionaries({}, optional=HEADERS))
@example({"Content-Length": "9" * 5000})
def test_what_is_stated_is_read_or_left_out(headers: dict[str, str]) -> None:
    found = stated(headers)
    text = headers.get("Content-Length", "").strip()
    if found.length is not None:
        assert re.fullmatch("[0-9]+", text) and found.length == int(text)
    elif "chunked" not in headers.get("Transfer-Encoding", "").lower():
        assert not re.fullmatch("[0-9]{1,18}", text)
    state = PartState.of("https://a.example/a.zip", found)
    if state is not None:
        assert state.if_range and (state.if_range.startswith('"') or state.if_range == state.last_modified)
    try:
        mark = fingerprint(found.etag, found.last_modified, found.archive_length)
    except DownloadRefused:
        return
    assert agrees(mark, found.etag, found.last_modified, found.archive_length)


@MANY
@given(TAGS, DATES, NUMBERS, TAGS, DATES, NUMBERS)
def test_fingerprints_of_unlike_validators_are_unlike(tag: str, date: str, size: str, tag2: str, date2: str, size2: str) -> None:
    values = [stated({"ETag": t, "Last-Modified": d, "Content-Length": s}) for t, d, s in ((tag, date, size), (tag2, date2, size2))]
    try:
        one, two = (fingerprint(value.etag, value.last_modified, value.length) for value in values)
    except DownloadRefused:
        return
    stripped = [[(text or "").strip().removeprefix("W/").strip() for text in (v.etag, v.last_modified)] + [v.length] for v in values]
    assert (one == two) <= any(a == b and a not in ("", None) for a, b in zip(*stripped, strict=True))


@MANY
@given(st.one_of(NUMBERS, DATES), st.one_of(st.none(), DATES))
def test_wait_that_is_asked_for_is_a_time_or_nothing(value: str, date: str | None) -> None:
    found = retry_after_s(value, date)
    assert found is None or (found >= 0 and not math.isnan(found))
    if re.fullmatch("[0-9]{1,15}", value.strip()):
        assert found == int(value)


@MANY
@given(RANGES, st.integers(1, 2000), st.fixed_dictionaries({}, optional=HEADERS), st.sampled_from([None, 1000]))
def test_only_the_very_rest_is_joined(header: str, kept_bytes: int, headers: dict[str, str], length: int | None) -> None:
    kept = PartState("https://a.example/a.zip", url_identity("https://a.example/a.zip"), '"v1"', DAY, LATER, length, "application/zip")
    answer = stated(headers)
    rest = joined(kept, kept_bytes, answer, header)
    if isinstance(rest, Stated):
        found = re.fullmatch(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)", header.strip(), re.IGNORECASE)
        assert found and int(found[1]) == kept_bytes and rest.length == int(found[2]) + 1
        assert found[3] in ("*", str(rest.length)) or int(found[3]) == rest.length
        assert length in (None, rest.length) and headers.get("ETag", '"v1"') == '"v1"' and headers.get("Last-Modified", DAY) == DAY
    whole = complete(kept, kept_bytes, answer, header)
    if isinstance(whole, Stated):
        assert re.fullmatch(rf"bytes \*/0*{kept_bytes}", header.strip(), re.IGNORECASE) and length in (None, kept_bytes)


@MANY
@given(RANGES)
def test_length_of_the_whole_is_read_from_the_first_byte_alone(header: str) -> None:
    found = total_of(header)
    if found is not None:
        assert re.fullmatch(rf"bytes 0-0/0*{found}", header.strip(), re.IGNORECASE)


@MANY
@given(LOCATIONS)
def test_place_that_is_led_to_is_refused_or_judged(location: str) -> None:
    """Only loopback is allowed here and no name is resolved: whatever the garbage spells, nothing else may pass."""
    try:
        url = joined_url("https://127.0.0.1/a.zip", location)
        AddressRule(["127.0.0.0/8"]).check_url(url, "http://127.0.0.1/")
    except PipelineError:
        return
    assert redact(url).split("/")[2].rpartition("@")[2].startswith("127.0.0.1")


@pytest.fixture(scope="module")
def listening(hostile: ModuleType) -> Any:
    with hostile.HostileServer() as running:
        yield running


@pytest.mark.fault(3)
@pytest.mark.fault(10)
@pytest.mark.fault(16)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([200, 200, 200, 206, 301, 302, 304, 401, 404, 416, 429, 500, 503]),
            st.fixed_dictionaries({}, optional=HEADERS | {"Location": LOCATIONS}),
            st.sampled_from([0, 1, 5_000, None]),
        ),
        min_size=1, max_size=4,
    )
)  # fmt: skip
@example([(200, {"ETag": '"v1"'}, 5_000), (206, {"ETag": '"v1"', "Content-Range": "bytes 4999-9999/10000"}, None)])
@example([(302, {"Location": "http://a\x00b/"}, 0)])
@example([(200, {"Content-Length": "9" * 5000}, None)])
@example([(200, {"Content-Encoding": "gzip, gzip"}, None)])
def test_headers_of_every_kind_on_the_wire_give_the_right_file_or_an_error_of_ours(
    listening: Any, make_manager: Callable[..., DownloadManager], archive: bytes, tmp_path: Path, answers: list[Any]
) -> None:
    """The answers come in turn, the last one for ever; the body is the archive, or a beginning of it."""
    body, turns = archive, iter(answers)
    last = answers[-1]

    def route(request: Any) -> None:
        status, headers, cut = next(turns, last)
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers.items()), "Connection: close", "", ""]
        request.send("\r\n".join(lines).encode("latin-1", "replace"))
        if request.method != "HEAD":
            request.send(body[:cut])

    class Everywhere(dict):  # type: ignore[type-arg]
        def __missing__(self, path: str) -> Any:
            return route

    listening.routes = Everywhere()
    dest = tmp_path / "a.zip"
    for path in tmp_path.iterdir():
        path.unlink()
    manager = make_manager(timeout_s=(0.5, 0.5), deadline_s=2.0, backoff_s=0.001, retry_after_cap_s=0.05, unpack_factor=0)
    try:
        manager.probe(listening.url("/a.zip"))
    except PipelineError as error:
        assert str(error)
    turns = iter(answers)
    try:
        receipt = manager.download_file(listening.url("/a.zip"), dest, max_retries=2)
    except PipelineError:
        assert not dest.exists()
        return
    assert dest.read_bytes() == body and receipt.bytes == len(body)
