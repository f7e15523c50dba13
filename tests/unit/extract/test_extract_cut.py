"""The measure of a member agrees with a plain split on LF, whatever the chunks and the part size."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.extract.cut import COMMON_WIDTHS, HEAD_BYTES, LineCutter, Measure

contents = st.lists(st.sampled_from([b"a", b"bcd", b"\r", b"\n", b"\r\n", b"\t", b"\x00\xa5"]), max_size=60).map(b"".join)


def measured(content: bytes, part_bytes: int, chunk_bytes: int) -> Measure:
    cutter = LineCutter(part_bytes)
    for start in range(0, len(content), chunk_bytes):
        cutter.feed(content[start : start + chunk_bytes])
    return cutter.finish()


def naive_lines(content: bytes) -> list[bytes]:
    """Every line with its end."""
    return [line for line in (piece + b"\n" for piece in content.split(b"\n")[:-1])] + (
        [content.split(b"\n")[-1]] if content and not content.endswith(b"\n") else []
    )


def without_end(line: bytes) -> bytes:
    return line[:-2] if line.endswith(b"\r\n") else line.removesuffix(b"\n")


@given(content=contents, part_bytes=st.integers(1, 50), chunk_bytes=st.integers(1, 40))
def test_parts_and_figures_agree_with_a_plain_split(content: bytes, part_bytes: int, chunk_bytes: int) -> None:
    measure = measured(content, part_bytes, chunk_bytes)
    lines = naive_lines(content)
    assert measure.bytes == len(content) and measure.lines == len(lines)
    assert measure.first_line == (without_end(lines[0]).decode("latin-1") if lines else "")
    assert measure.last_line == (without_end(lines[-1]).decode("latin-1") if lines else "")
    assert measure.crlf == sum(line.endswith(b"\r\n") for line in lines)
    assert measure.lf == sum(line.endswith(b"\n") and not line.endswith(b"\r\n") for line in lines)
    assert measure.unterminated == bool(lines and not lines[-1].endswith(b"\n"))
    assert measure.widths == Counter(len(without_end(line)) for line in lines) and measure.other_widths == 0
    at, line = 0, 1
    for number, part in enumerate(measure.parts):
        assert (part.number, part.start, part.first_line) == (number, at, line)
        inside = naive_lines(content[part.start : part.end])
        assert inside == lines[part.first_line - 1 : part.first_line - 1 + part.lines] and part.lines == len(inside) > 0
        # No line earlier would have been long enough; only the last part may be shorter.
        assert sum(map(len, inside[:-1])) < part_bytes
        assert part.end - part.start >= part_bytes or part is measure.parts[-1]
        at, line = part.end, line + part.lines
    assert (at, line) == (len(content), len(lines) + 1)


def test_empty_member_has_no_line_and_no_part() -> None:
    measure = measured(b"", 10, 10)
    assert (measure.lines, measure.parts, measure.unterminated, measure.first_line) == (0, (), False, "")


def test_common_widths_are_kept_and_the_rest_is_counted() -> None:
    lines = [b"x" * width + b"\r\n" for width in range(50) for _ in range(50 - width)]
    measure = measured(b"".join(lines), 1 << 20, 777)
    assert dict(measure.widths) == {width: 50 - width for width in range(COMMON_WIDTHS)}
    assert measure.other_widths == len(lines) - sum(measure.widths.values())


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("width", [HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1, 3 * HEAD_BYTES])
@pytest.mark.parametrize("chunk_bytes", [1000, HEAD_BYTES, 1 << 20])
def test_long_first_and_last_lines_are_cut_at_64_kib(end: bytes, width: int, chunk_bytes: int) -> None:
    first, last = b"f" * width, b"l" * width
    measure = measured(first + b"\r\n" + last + end, 1 << 20, chunk_bytes)
    assert measure.first_line == "f" * min(width, HEAD_BYTES) and measure.last_line == "l" * min(width, HEAD_BYTES)
    assert measure.widths == {width: 2}


def test_line_of_a_hundred_megabytes_needs_no_memory() -> None:
    cutter, chunk = LineCutter(1 << 20), b"x" * (1 << 20)
    cutter.feed(chunk)
    tracemalloc.start()
    for _ in range(100):
        cutter.feed(chunk)
    cutter.feed(b"\ny\n")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    measure = cutter.finish()
    assert measure.lines == 2 and measure.last_line == "y" and [part.lines for part in measure.parts] == [1, 1]
    assert peak < 8 << 20
