"""quickstart.sh, nightly.sh and test.sh as a person, cron or systemd starts them: from anywhere, with a bare PATH."""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import embedded_home
import psycopg2
import pytest
import sqlalchemy as sa
from sample_site import BUNDLE, SampleServer

from pipeline import processes, services
from pipeline.cli import shown_url
from pipeline.database.server import server_url

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "scripts"
HCAD_PIPELINE = REPOSITORY / ".venv" / "bin" / "hcad-pipeline"
TIMEOUT_S = 600


@pytest.fixture(scope="module")
def environment():
    """A bare environment with a state folder of its own, whose path has a blank; what is started in it is stopped."""
    with embedded_home.open_folder() as home:
        kept = {name: value for name, value in os.environ.items() if name in {"HOME", "TMPDIR"} or name.startswith("COVERAGE_")}
        yield kept | {"PATH": "/usr/bin:/bin", "HCAD_PIPELINE_STATE": str(home / "the state")}


@pytest.fixture(scope="module")
def quickstarted(environment, tmp_path_factory):
    """The first quickstart: its output."""
    done = call([SCRIPTS / "quickstart.sh"], environment, cwd=tmp_path_factory.mktemp("elsewhere"))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """A server of one's own with HCAD 2025 and no 2026."""
    server = SampleServer(BUNDLE, tmp_path_factory.mktemp("mirror") / "log")
    yield f"{server.url}/{{source}}"
    server.stop()


def call(command, environment, cwd="/"):
    return subprocess.run([str(word) for word in command], env=environment, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S)


def state_of(environment):
    return Path(environment["HCAD_PIPELINE_STATE"])


def configuration(folder, old, new):
    """A copy of the shipped configuration with one line changed."""
    shutil.copytree(REPOSITORY / "config", folder / "config")
    path = folder / "config" / "luigi.cfg"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return path


def test_quickstart_shows_the_account_of_every_table(quickstarted):
    rows = {
        words[2]: words[3:] for line in quickstarted.splitlines() if len(words := line.split()) == 10 and words[0] in ("hcad", "travis")
    }
    assert {table: words[1] for table, words in rows.items()} == {
        "arb_protest_real": "424,335", "real_acct": "50", "real_mnrl": "7,262", "real_neighborhood_code": "12,020",
        "abstract_subdv": "23,844", "country_code": "245", "entity": "229", "state_code": "45",
    }  # fmt: skip


def test_the_query_that_quickstart_prints_can_be_pasted_anywhere(quickstarted, environment, tmp_path):
    command = next(line.strip() for line in quickstarted.splitlines() if " query " in line)
    bare = {name: value for name, value in environment.items() if name != "HCAD_PIPELINE_STATE"}
    done = subprocess.run(["sh", "-c", command], env=bare, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert "2019-05-15" in done.stdout


def test_the_addresses_that_quickstart_prints_are_alive(quickstarted, environment):
    printed = dict(line.split() for line in quickstarted.splitlines() if re.match(r"(database|scheduler|sample) ", line))
    alive = {found.name: found.url for found in services.running(state_of(environment))}
    assert printed["scheduler"] == alive["luigid"]
    assert printed["sample"] == alive["sample-server"]
    with closing(psycopg2.connect(printed["database"])) as connection:
        assert connection.server_version >= 150000


def test_a_second_quickstart_takes_seconds_and_writes_nothing(quickstarted, environment):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = call([SCRIPTS / "quickstart.sh"], environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing new" in done.stdout
    assert "Setting up" not in done.stdout
    # Processor time: what others take of a busy machine does not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60


def test_quickstart_works_through_a_link(quickstarted, environment, tmp_path):
    link = tmp_path / "start"
    link.symlink_to(SCRIPTS / "quickstart.sh")
    assert call([link], environment).returncode == 0


def test_quickstart_that_fails_shows_the_end_of_the_log_and_keeps_the_code(quickstarted, environment, tmp_path):
    releases = state_of(environment) / "releases"
    aside = releases.with_name("aside")
    releases.rename(aside)
    releases.write_text("a file where a folder belongs")
    config = configuration(tmp_path, "keep_alive = true", "keep_alive = false")  # no second try
    try:
        done = call([SCRIPTS / "quickstart.sh"], environment | {"LUIGI_CONFIG_PATH": str(config)})
    finally:
        releases.unlink()
        aside.rename(releases)
    code = int(re.search(r"ended with exit code (\d+)", done.stdout)[1])
    assert done.returncode == code != 0
    assert "ProbeRelease" in done.stdout.partition("The end of")[2]
    assert "docs/operations.md" in done.stdout


def test_quickstart_takes_no_arguments(environment):
    done = call([SCRIPTS / "quickstart.sh", "--now"], environment)
    assert (done.returncode, done.stdout) == (40, "")
    assert "no arguments" in done.stderr


def test_the_sample_never_takes_the_place_of_a_county(quickstarted, environment, database_url):
    county = environment | {"DATABASE_URL": database_url}
    assert call([HCAD_PIPELINE, "status"], county).returncode == 0  # makes the ledger
    with (
        closing(psycopg2.connect(sa.make_url(database_url).set(drivername="postgresql").render_as_string(False))) as connection,
        connection,
    ):
        connection.cursor().execute(
            """insert into etl.import (source, tax_year, release, recipe, profile, state, published_at)
               values ('hcad', 2025, 'a county', 'r', 'production', 'published', now())"""
        )
    done = call([SCRIPTS / "quickstart.sh"], county)
    assert done.returncode == 40
    assert "hcad 2025" in done.stderr
    assert "run " not in done.stdout
    assert "profile sample" not in call([HCAD_PIPELINE, "status"], county).stdout


#: The database of these tests holds the sample, and runs of another profile would be refused; the mirror stands for its server.
SAMPLE = {"HCAD_PIPELINE_PROFILE": "sample", "SAMPLE_SERVER_URL": "http://127.0.0.1:9"}


def nightly(environment, *arguments, **variables):
    return call([SCRIPTS / "nightly.sh", *arguments], environment | SAMPLE | variables)


def logs(environment):
    return sorted((state_of(environment) / "logs").glob("nightly-*.log"))


def test_nightly_says_in_one_line_how_the_run_ended_and_keeps_its_code(quickstarted, environment, mirror):
    done = nightly(environment, "--source", "hcad", "--year", "2026", HCAD_PIPELINE_MIRROR=mirror)
    assert done.returncode == 20, done.stdout + done.stderr
    assert done.stderr == ""
    assert re.fullmatch(r"nightly\.sh: exit code 20: .* not published .*; log .*\n", done.stdout)
    log = Path(done.stdout.rstrip("\n").partition("; log ")[2])
    assert log in logs(environment)
    assert "hcad has not published 2026 yet" in log.read_text()
    assert "ProbeRelease" in log.read_text()  # Luigi's own lines are in it


def test_nightly_starts_a_scheduler_where_none_runs(quickstarted, environment, mirror, tmp_path):
    services.stop_all(state_of(environment))
    config = configuration(tmp_path, "127.0.0.1:8082", "127.0.0.1:9")  # nobody listens there
    done = nightly(environment, "--source", "hcad", "--year", "2026", HCAD_PIPELINE_MIRROR=mirror, LUIGI_CONFIG_PATH=str(config))
    assert done.returncode == 20, logs(environment)[-1].read_text()
    assert [found.name for found in services.running(state_of(environment))] == ["luigid"]


def test_nightly_keeps_thirty_logs(quickstarted, environment, mirror):
    folder = state_of(environment) / "logs"
    old = [folder / f"nightly-2020-01-{day:02}T040000Z.log" for day in range(1, 32)]
    for path in old:
        path.touch()
    assert nightly(environment, "--source", "nowhere").returncode == 40
    kept = logs(environment)
    assert len(kept) == 30
    assert old[0] not in kept
    assert old[-1] in kept


def test_nightly_without_a_setup_says_what_to_do(tmp_path, environment):
    (tmp_path / "scripts").mkdir()
    for name in ("nightly.sh", "lib.sh"):
        shutil.copy2(SCRIPTS / name, tmp_path / "scripts" / name)
    done = call([tmp_path / "scripts" / "nightly.sh"], environment)
    assert done.returncode == 40
    assert "quickstart.sh" in done.stderr


def test_a_stop_of_nightly_ends_every_process_of_the_run(quickstarted, environment):
    """The mirror takes the connection and never answers, so the run is under way when the stop comes."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(300)
        mirror = f"http://127.0.0.1:{silent.getsockname()[1]}/{{source}}"
        process = subprocess.Popen(
            [SCRIPTS / "nightly.sh", "--source", "hcad", "--year", "2025"], cwd="/", stdout=subprocess.PIPE, text=True,
            env=environment | SAMPLE | {"HCAD_PIPELINE_MIRROR": mirror},
        )  # fmt: skip
        connection, _ = silent.accept()
        before = descendants(process.pid)
        assert any("luigi" in processes.command_line(pid) for pid in before)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            said, _ = process.communicate(timeout=300)
        finally:
            deadline = time.monotonic() + 60
            while (left := [pid for pid in before if processes.started_at(pid)]) and time.monotonic() < deadline:
                time.sleep(0.05)  # what was killed needs a moment
            for pid in left:  # the test has failed; nothing of it outlives it
                os.kill(pid, signal.SIGKILL)
        connection.close()
    assert process.returncode == 30
    assert "the next run goes on" in said
    assert time.monotonic() - began < 90
    assert not left


def descendants(pid):
    """The processes below one, by /proc or ps."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listed.splitlines())}
    found, more = set(), {pid}
    while more:
        more = {child for child, parent in parents.items() if parent in more} - found
        found |= more
    return found


def test_nightly_and_a_run_at_work_do_not_meet(quickstarted, environment, mirror):
    connection = psycopg2.connect(shown_url(server_url("", state_of(environment))))
    try:
        connection.cursor().execute("select pg_advisory_lock(hashtextextended('hcad-pipeline writer hcad', 0))")
        done = nightly(environment, "--source", "hcad", HCAD_PIPELINE_MIRROR=mirror)
    finally:
        connection.close()
    assert done.returncode == 10
    assert "another run" in done.stdout


def test_test_sh_hands_its_arguments_to_pytest_and_forgets_the_operators_database(environment, tmp_path):
    probe = tmp_path / "test_probe.py"
    probe.write_text("import os\n\n\ndef test_probe():\n    assert not {'DATABASE_URL', 'HCAD_PIPELINE_STATE'} & set(os.environ)\n")
    done = call(
        [SCRIPTS / "test.sh", "--no-cov", "-q", "-p", "no:cacheprovider", "-c", "setup.cfg", "--rootdir", ".", probe],
        environment | {"DATABASE_URL": "postgresql://nobody@db.invalid/production"},
        cwd="/tmp",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_test_sh_fails_below_the_coverage(environment, tmp_path):
    done = call(
        [SCRIPTS / "test.sh", "-q", "-p", "no:cacheprovider", "tests/unit/test_faults_doc.py"],
        {name: value for name, value in environment.items() if not name.startswith("COVERAGE_")}
        | {"COVERAGE_FILE": str(tmp_path / "coverage")},
    )
    assert done.returncode != 0
    assert "Required test coverage of 80% not reached" in done.stdout + done.stderr


def checkout(folder, python):
    """A checkout of the test scripts alone, set up with a Python that is a shell script."""
    (folder / "scripts").mkdir()
    for name in ("scripts/test.sh", "scripts/lib.sh", "setup.cfg", "pyproject.toml"):
        shutil.copy2(REPOSITORY / name, folder / name)
    program = folder / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{python}\n")
    program.chmod(0o755)
    fingerprint = re.search(r"^FINGERPRINT='(.*?)'", (SCRIPTS / "lib.sh").read_text(), re.DOTALL | re.MULTILINE)[1]
    stamp = subprocess.run([sys.executable, "-c", fingerprint, folder], capture_output=True, text=True, check=True).stdout
    (folder / ".venv" / "set-up.stamp").write_text(f"{stamp}embedded,dev\n")


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1), (2, 0)])
def test_test_sh_runs_what_measures_time_alone_and_fails_with_either_half(environment, tmp_path, codes):
    """The checkout's Python notes what pytest is asked for, and ends as the test says."""
    calls = tmp_path / "calls"
    checkout(
        tmp_path,
        f"""[ "$1 $2" = "-m pytest" ] || exec {sys.executable} "$@"
echo "$*" >>"{calls}"
case "$*" in *"-m not serial"*) exit {codes[0]} ;; *"-m serial"*) exit {codes[1]} ;; *) exit 9 ;; esac""",
    )
    assert call([tmp_path / "scripts" / "test.sh"], environment | {"TEST_WORKERS": "3"}).returncode == max(codes)
    at_once, *then = calls.read_text().splitlines()
    assert "--numprocesses=3" in at_once and "--cov=pipeline" in at_once
    if codes[0] == 2:  # it was interrupted
        assert then == []
        return
    (alone,) = then
    assert "numprocesses" not in alone and "--cov-append" in alone and "--cov-fail-under=80" in alone


#: What pytest would do: so many tests fail beside others, and pass alone.
RECOVERING = """[ "$1 $2" = "-m pytest" ] || exec {python} "$@"
notes=$(echo "$*" | sed 's,.*cache_dir=\\([^ ]*\\).*,\\1/v/cache,')
case "$*" in
*"-m not serial"*) mkdir -p "$notes" && echo '{failed}' >"$notes/lastfailed"; exit 1 ;;
*"--last-failed"*) echo '{{}}' >"$notes/lastfailed" ;;
esac"""


@pytest.mark.parametrize(("few", "code"), [(5, 0), (6, 1)])
def test_test_sh_names_a_few_that_passed_alone_and_does_not_fail_for_them(environment, tmp_path, few, code):
    tests = [f"tests/test_few.py::test_flaky[{number} of {few}]" for number in range(few)]
    checkout(tmp_path, RECOVERING.format(python=sys.executable, failed=json.dumps(dict.fromkeys(tests, True))))
    done = call([tmp_path / "scripts" / "test.sh"], environment)
    assert done.returncode == code, done.stdout + done.stderr
    named = done.stdout.partition("\n== failed beside others, passed alone\n")[2].splitlines()
    assert named == ([] if code else tests)


#: One fails as long as others run beside it, one always.
FAILING = """
import os

import pipeline
import pytest


def test_flaky():
    assert pipeline.IS_HERE and "PYTEST_XDIST_WORKER" not in os.environ


def test_broken():
    raise AssertionError


@pytest.mark.serial
def test_alone():
    pass
"""


def test_test_sh_fails_for_what_fails_alone_too(environment, tmp_path):
    """The same by the real pytest."""
    checkout(tmp_path, f'exec {sys.executable} "$@"')
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("IS_HERE = True\n")
    for name in ("e2e", "integration"):
        (tmp_path / "tests" / name).mkdir(parents=True)
    (tmp_path / "tests" / "test_few.py").write_text(FAILING)
    ours = {name: value for name, value in environment.items() if not name.startswith("COVERAGE_")}
    done = call([tmp_path / "scripts" / "test.sh"], ours | {"TEST_WORKERS": "1", "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.partition("\n== failed beside others, passed alone\n")[2] == "tests/test_few.py::test_flaky\n"
    assert [line.strip("= ").partition(" in ")[0] for line in done.stdout.splitlines() if re.search(r"^=.* in [0-9.]+s", line)] == [
        "2 failed", "1 failed, 1 passed", "1 passed, 2 deselected",
    ]  # fmt: skip
    assert "Required test coverage of 80% reached. Total coverage: 100.00%" in done.stdout


@pytest.mark.parametrize("version", ["3.10", "3.14"])
def test_a_python_that_is_not_supported_is_named(tmp_path, environment, version):
    """The checkout is a copy of what set-up looks at; the Python says that it is of another version."""
    (tmp_path / "scripts").mkdir()
    for name in ("quickstart.sh", "lib.sh"):
        shutil.copy2(SCRIPTS / name, tmp_path / "scripts" / name)
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy2(REPOSITORY / name, tmp_path / name)
    python = tmp_path / "python"
    major, minor = version.split(".")
    claim = f"import sys; sys.version_info = ({major}, {minor}, 0, 'final', 0); exec(sys.argv[1])"
    python.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo Python {version}.0 && exit\nexec {sys.executable} -c "{claim}" "$2"\n')
    python.chmod(0o755)
    done = call([tmp_path / "scripts" / "quickstart.sh"], environment | {"PYTHON": str(python)})
    assert done.returncode == 40
    assert f"Python {version}.0" in done.stderr
    assert "3.11, 3.12 or 3.13" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_every_script_is_executable_and_passes_shellcheck():
    scripts = [*sorted(SCRIPTS.glob("*.sh")), REPOSITORY / ".ci" / "run"]
    for path in scripts:
        assert os.access(path, os.X_OK) == (path.name != "lib.sh"), path
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "--external-sources", *scripts], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
