"""Staging keeps within [load] max_memory_mb, whatever the rows are like."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from county import OWNER

STAGES = """
import json, sys
from pathlib import Path
from county import ORIGIN, OWNER, World
from pipeline.load.manager import LoadManager

world = World(sys.argv[1], Path(sys.argv[2]))
loads = LoadManager(world.engine, profile="test", max_memory_mb=int(sys.argv[3]))
loads.open_import(world.key("a"), OWNER)
loads.stage_part(world.key("a"), OWNER, Path(sys.argv[2]), origin=ORIGIN)
line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(json.dumps(int(line.split()[1]) / 1024))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux")
@pytest.mark.parametrize(("most_mb", "group_rows"), [(350, 8000), (245, 800)])
def test_wide_rows_are_staged_within_the_memory_that_is_set(world, database_url, most_mb, group_rows):
    """80 MB in rows of 10 kB: a batch of 20,000 of them would be all of it, several times over.

    The transform writes 8 MB at a time; with those and the shipped setting the process peaks above the smaller figure.
    """
    folder = world.part(OWNER, [(f"{number:06}", f"{number:05}" * 2000, None) for number in range(8000)])
    pq.write_table(pq.read_table(folder / "rows.parquet"), folder / "rows.parquet", row_group_size=group_rows)
    untraced = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    environment = {**untraced, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    program = [sys.executable, "-c", STAGES, database_url, str(folder), str(most_mb)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) <= most_mb
    assert world.rows("select count(*), sum(length(name)) from etl_staging.i1_owner_rows") == [(8000, 80_000_000)]
