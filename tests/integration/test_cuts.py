"""However a member is cut into parts, the table, its quarantine and every count come out the same."""

import hashlib
import random
from dataclasses import asdict, replace

import pytest
from county import FEATURE, OWNER, SOURCE, World

from pipeline.database.ledger import ImportKey
from pipeline.extract.cut import LineCutter
from pipeline.extract.lookup import raw_lines
from pipeline.handoff import Member, Part
from pipeline.load.checkpoints import Origin
from pipeline.transform import DataTransformer, choose_layout, read_header

COLUMNS = (replace(OWNER.columns[0], rules={"regex": r"\d{4}"}), *OWNER.columns[1:-1], replace(OWNER.columns[-1], on_error="null"))


def roll() -> bytes:
    """400 lines: keys that come once, again with the same values, and again with others; broken and blank lines between them."""
    draw = random.Random(4)
    lines = ["acct\tname\tvalue"]
    for _ in range(399):
        acct, name = f"{draw.randrange(150):04d}", draw.choice("ABC")
        good = f"{acct}\t{name}\t{draw.choice(['10', '10.00', '', 'Pending'])}"
        lines.append(draw.choices([good, f"x{good}", acct, "", good.replace("\t", " \t", 1)], [80, 2, 2, 2, 14])[0])
    return "\r\n".join(lines).encode() + b"\r\n"


def cut(content: bytes, parts: int) -> Member:
    cutter = LineCutter(1 << 30)
    cutter.feed(content)
    measured = cutter.finish()
    lines = content.splitlines(keepends=True)
    bounds = [round(number * len(lines) / parts) for number in range(parts + 1)]
    starts = [sum(map(len, lines[:bound])) for bound in bounds]
    cuts = tuple(Part(n, starts[n], starts[n + 1], bounds[n] + 1, bounds[n + 1] - bounds[n]) for n in range(parts))
    fields = asdict(measured) | {"parts": cuts, "widths": measured.widths}
    return Member(name="roll.txt", file="roll.txt", sha256=hashlib.sha256(content).hexdigest(), **fields)


def published(world: World, table, content: bytes, parts: int, release: str):
    """Bring the member all the way in so many parts; everything that can be known of it afterwards."""
    folder = world.folder / release
    folder.mkdir()
    path = folder / "roll.txt"
    path.write_bytes(content)
    member = cut(content, parts)
    reading = read_header(table, choose_layout(table, member, year=2025, version=None), member)
    key, origin = ImportKey("county", 2025, release, "r1"), Origin.of(member, "t1")
    opened = world.loads.open_import(key, table)
    world.loads.expect_parts(key, table, origin)
    transformer = DataTransformer(table, chunk_rows=50)
    for part in member.parts:
        transformer.transform_part(path, member, part, reading, folder / str(part.number))
        world.loads.stage_part(key, table, folder / str(part.number), origin=origin)
    settled = world.loads.settle_table(
        key, table, origin=origin, parts=parts, records=member.lines - 1,
        raw_lines=lambda numbers: raw_lines(path, member, numbers, "cp1252"),
    )  # fmt: skip
    source = replace(SOURCE, tables=(table,))
    world.loads.check_release(key, source)
    world.loads.publish(key, source)
    rows = world.rows(f'select {", ".join(column.name for column in table.columns)}, row_hash::text from county."{table.name}" order by 1, 2, 3, 4')
    refused = world.rows("select line, raw, reasons from etl.quarantine where import_id = %s order by line", opened.import_id)
    counts = {name: value for name, value in vars(settled).items() if name not in ("parts", "seconds")}
    return rows, refused, counts


@pytest.mark.fault(46)
@pytest.mark.parametrize("on_conflict", ["quarantine", "first", "last", None])
def test_outcome_is_the_same_in_one_part_in_three_and_in_seventeen(database_url, tmp_path, on_conflict):
    of = replace(OWNER, columns=COLUMNS)
    of = replace(of, on_conflict=on_conflict) if on_conflict else replace(FEATURE, columns=COLUMNS)
    content = roll()
    world = World(database_url, tmp_path)
    try:
        whole, in_three, in_seventeen = (published(world, of, content, parts, f"in-{parts}") for parts in (1, 3, 17))
        assert whole == in_three == in_seventeen
    finally:
        world.engine.dispose()
    rows, refused, counts = whole
    good = [line for line in content.decode().splitlines()[1:] if line.count("\t") == 2 and line[:4].isdigit()]
    first = {line[:4]: line.split("\t")[1] for line in reversed(good)}
    stands = {line[:4]: line.split("\t")[1] for line in good} if on_conflict == "last" else first
    assert stands != first or on_conflict != "last"
    if on_conflict:
        assert {acct: name for acct, name, *_ in rows} == stands
    assert len(rows) == (len(first) if on_conflict else len(good))
    assert counts["filtered"] == content.decode().splitlines().count("") > 0
    assert counts["nulled"] == {"value:not_a_number": sum(line.endswith("Pending") for line in good)}
    assert len(refused) == counts["quarantined"] > 0
