"""The configuration becomes typed values once, and a wrong one stops with its section and key."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOW = "from pipeline.settings import read_settings; s = read_settings(); print(s.part_bytes, s.profile, s.state, s.database_url, s.scheduler_url)"


def read(tmp_path, text="", show=SHOW, **environ):
    """Read settings in a process of its own: Luigi reads its configuration once."""
    config = tmp_path / "luigi.cfg"
    config.write_text(text)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HCAD_PIPELINE") and name != "DATABASE_URL"}
    return subprocess.run(
        [sys.executable, "-c", show],
        env=clean | {"LUIGI_CONFIG_PATH": str(config), **environ},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )


def test_shipped_configuration_is_whole_and_every_key_of_ours_is_read():
    import configparser

    from pipeline import settings

    config = configparser.ConfigParser()
    config.read(ROOT / "config" / "luigi.cfg")
    for section in ("paths", "catalog", "database", "download", "extract", "transform", "load", "retention"):
        declared = {name for name, _ in getattr(settings, section).get_params()}
        assert set(config[section]) == declared, section


def test_environment_stands_over_the_file(tmp_path):
    done = read(tmp_path, "[extract]\npart_bytes = 5\n[catalog]\nprofile = a\n", HCAD_PIPELINE_PROFILE="b", DATABASE_URL="postgresql://h/d")
    assert done.stdout.split() == ["5", "b", str(ROOT / "var"), "postgresql://h/d", "http://127.0.0.1:8082/"]


def test_relative_state_starts_at_the_checkout_from_any_folder(tmp_path):
    assert str(ROOT / "elsewhere") in read(tmp_path, "[paths]\nstate = elsewhere\n").stdout
    assert "/tmp/x" in read(tmp_path, "[paths]\nstate = elsewhere\n", HCAD_PIPELINE_STATE="/tmp/x").stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[extract]\npart_bytes = many\n", "E_CONFIG"),
        ("[load]\nbatch_rows = 0\n", "[load] batch_rows = 0"),
        ("[load]\nmax_memory_mb = 0\n", "[load] max_memory_mb = 0"),
        ("[transform]\nchunk_rows = -1\n", "chunk_rows"),
        ("[retention]\narchives = 0\n", "[retention] archives = 0"),
        ("[retention]\nmembers = -1\n", "members = -1"),
    ],
)
def test_wrong_value_is_named(tmp_path, text, words):
    done = read(tmp_path, text)
    assert done.returncode != 0 and words in done.stderr


@pytest.mark.fault(72)
def test_tasks_refuse_to_start_without_exit_codes_of_ours(tmp_path):
    config = tmp_path / "luigi.cfg"
    config.write_text("[core]\n")
    done = subprocess.run(
        [sys.executable, "-m", "luigi", "--module", "pipeline.tasks", "SyncAll", "--local-scheduler"],
        env=os.environ | {"LUIGI_CONFIG_PATH": str(config)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode != 0
    assert "LUIGI_CONFIG_PATH=config/luigi.cfg" in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[download]\nper_host = 0\n", "[download] per_host = 0"),
        ("[download]\ndeadline_s = -1\n", "[download] deadline_s = -1"),
        ("[download]\nmin_bytes_per_s = nan\n", "[download] min_bytes_per_s = nan"),
        ("[download]\nslot_wait_s = soon\n", "E_CONFIG"),
        ("[download]\nmax_bytes = 1.5\n", "E_CONFIG"),
        ("[download]\nbandwidth = quick\n", "[download] bandwidth: 'quick'"),
    ],
)
def test_wrong_figure_of_a_download_is_named(tmp_path, text, words):
    done = read(tmp_path, text)
    assert done.returncode != 0 and words in done.stderr


@pytest.mark.parametrize("section", ["database", "download", "extract", "transform", "load", "retention"])
def test_shipped_figures_are_the_defaults(section):
    """Nobody who leaves a line out gets another figure than the one that stands there."""
    import configparser

    from pipeline import settings

    config = configparser.ConfigParser()
    config.read(ROOT / "config" / "luigi.cfg")
    parameters = getattr(settings, section).get_params()
    defaults = {name: parameter for name, parameter in parameters if name not in ("mirror", "mirror_addresses")}
    for name, parameter in defaults.items():
        assert parameter.parse(config[section][name]) == parameter._default, name


LOAD_STAGE = """
import json
from dataclasses import asdict
from pipeline.database.engine import limits_of, make_engine
from pipeline.settings import process_settings
from pipeline.tasks import base

base.open_database = lambda url, state, limits: make_engine(url, limits=limits)
loads = base.PipelineTask(source="hcad", year=2025).loads()
print(json.dumps({
    "limits": asdict(limits_of(loads.engine)), "pool": loads.engine.pool.size(), "min_free": process_settings().min_free_bytes,
    "host": loads.engine.url.host, "load": [loads.most.rows, loads.most.memory_mb, loads.batch_rows, loads.quarantine_rows],
}))
"""


def test_settings_reach_the_load_stage_and_its_connections(tmp_path):
    """What they change there is the business of the tests of staging, of the quarantine and of the database's links."""
    text = """
[retcode]
task_failed = 30
[database]
url = postgresql://configured/rolls
connect_timeout_s = 3
reconnect_s = 4
lock_timeout_s = 5
statement_timeout_s = 6
idle_in_transaction_s = 7
silence_s = 8
pool_size = 9
min_free_mb = 10
[load]
batch_rows = 11
max_memory_mb = 212
quarantine_rows_per_rule = 13
"""
    found = json.loads(read(tmp_path, text, show=LOAD_STAGE).stdout)
    assert found.pop("limits") == {
        "connect_s": 3, "reconnect_s": 4, "lock_s": 5, "statement_s": 6, "idle_in_transaction_s": 7, "silence_s": 8, "pool": 9,
    }  # fmt: skip
    assert found == {"pool": 9, "min_free": 10 << 20, "host": "configured", "load": [11, 212, 11, 13]}
