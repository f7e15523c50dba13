"""Every command of README.md, in its order and in one shell.

What is replaced: the database's URL and the mirror's host, which are examples; HCAD's host, by a server that has the sample's real rows and, of
every other table that a release must have, the record that its schema file shows; the scheduler's port, because 8082 may be taken. Nothing else: production runs with its own floors, so the gate refuses the sample's
fifty accounts, and the README's way to accept a release is walked for real. `./scripts/test.sh` runs this test, and is not run by it.
"""

import os
import re
import socket
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from sample_site import BUNDLE, REAL, SampleServer, members, script

from pipeline.catalog import load_catalog

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
NOT_RUN = {"./scripts/test.sh"}
TIMEOUT_S = 900
#: The exit code and what must be shown, where that is not just 0.
PROMISED = {
    "./scripts/quickstart.sh": (0, "424,335"),
    "hcad-pipeline --profile sample run": (0, "nothing new"),
    "hcad-pipeline down": (0, "postgres"),
    "hcad-pipeline run --workers 4": (31, "real_acct rows: 50, expected at least 1400000"),
    "hcad-pipeline report 1": (0, "FAILED   real_acct rows: 50, expected at least 1400000"),
    'hcad-pipeline accept 1 --reason "a small county, looked at by hand"': (0, "import 1 is accepted"),
    # 2025 is in; the sample server has no 2026.
    "hcad-pipeline run": (20, "hcad 2025: published"),
    "WORKERS=4 ./scripts/nightly.sh": (20, "has not published"),
    'hcad-pipeline rollback 1 --reason "values of the wrong year"': (0, "real_acct: 50 rows removed"),
    "python": (0, "\n50\n"),
}


@dataclass(frozen=True)
class Command:
    """A command, or a block of Python, as it stands in the README."""

    text: str
    language: str


def commands() -> list[Command]:
    found = []
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE):
        lines = [block] if language == "python" else block.replace("\\\n", "").splitlines()
        found += [Command(line, language) for line in lines if line.strip() and not line.startswith("#")]
    return found


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def whole_release(root: Path) -> Path:
    """The archives without which HCAD has no release of 2025, below ``root`` as a server has them."""
    source, real = load_catalog(environ={})["hcad"], members(BUNDLE / REAL)
    for archive in source.archives_for(2025):
        files = {}
        for table in source.tables_for(2025) if archive.required else ():
            if table.archive == archive.name and table.required:
                header = "\t".join(column.source for column in table.columns)
                shown = next(example.line for example in table.examples if example.gives)
                files[table.member] = real.get(table.member) or f"{header}\r\n{shown}\r\n".encode("cp1252")
        if files:
            path = root / "hcad" / archive.path.format(year=2025)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(script("make_sample").pack(files))
    return root


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    server = SampleServer(whole_release(tmp_path_factory.mktemp("hcad")), tmp_path_factory.mktemp("mirror") / "log")
    yield server.url
    server.stop()


@pytest.fixture
def environment(open_folder):
    """A state folder of its own, on a machine that has nothing of ours on PATH."""
    kept = {name: value for name, value in os.environ.items() if name in {"HOME", "TMPDIR"} or name.startswith("COVERAGE_")}
    return kept | {"PATH": "/usr/bin:/bin", "HCAD_PIPELINE_STATE": str(open_folder / "var"), "LUIGID_PORT": str(free_port())}


def configuration(folder: Path, port: str) -> Path:
    """config/luigi.cfg with another port, and the lock of plain luigi commands apart from other people's."""
    text = (REPOSITORY / "config" / "luigi.cfg").read_text()
    for old, new in {"127.0.0.1:8082": f"127.0.0.1:{port}", "lock_pid_dir = var\n": f"lock_pid_dir = {folder / 'lock'}\n"}.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = folder / "luigi.cfg"
    path.write_text(text)
    return path


def substituted(text: str, replacements: dict[str, str]) -> str:
    for old, new in replacements.items():
        text = text.replace(old, new)
    return text


def test_every_command_of_the_readme_does_what_it_says(tmp_path, environment, mirror, database_url):
    replacements = {
        "postgresql://roll:secret@db.example.org/roll": sa.make_url(database_url).set(drivername="postgresql").render_as_string(False),
        "http://mirror.example.org": mirror,
        "LUIGI_CONFIG_PATH=config/luigi.cfg": f"LUIGI_CONFIG_PATH={configuration(tmp_path, environment['LUIGID_PORT'])}",
    }
    for example in replacements:
        assert example in README
    script, ran = [f"cd {REPOSITORY}"], [command for command in commands() if command.text not in NOT_RUN]
    for number, command in enumerate(ran):
        text = substituted(command.text, replacements)
        if command.language == "python":
            (tmp_path / f"{number}.py").write_text(text)
            text = f"python {tmp_path / f'{number}.py'}"
        if command.text.startswith("export DATABASE_URL="):
            script.append(f"export HCAD_PIPELINE_MIRROR='{mirror}/{{source}}'")  # from here on HCAD itself is meant
        script.append(f"{{\n{text}\n}} >{tmp_path}/{number}.out 2>&1 </dev/null")
        code, _ = promised(command)
        script.append(f"code=$?; echo $code >{tmp_path}/{number}.code; [ $code = {code} ] || exit 1")
        if text.endswith("&"):  # what comes next finds it listening
            script.append('until (exec 3<>"/dev/tcp/127.0.0.1/$LUIGID_PORT") 2>/dev/null; do sleep 0.1; done')
    began = time.monotonic()
    done = subprocess.run(["bash", "-c", "\n".join(script)], env=environment, cwd="/", capture_output=True, text=True, timeout=TIMEOUT_S)
    for number, command in enumerate(ran):
        code, shown = promised(command)
        said = tmp_path / f"{number}.out"
        assert said.exists(), f"never reached: {command.text}\n{done.stdout}{done.stderr}"
        out = said.read_text()
        assert (tmp_path / f"{number}.code").read_text().strip() == str(code), f"{command.text}\n{out}"
        assert shown in out, command.text
    assert time.monotonic() - began < TIMEOUT_S


def promised(command: Command) -> tuple[int, str]:
    return PROMISED.get("python" if command.language == "python" else command.text, (0, ""))


def test_what_is_promised_stands_in_the_readme():
    texts = {command.text for command in commands()} | {"python"}
    assert not (set(PROMISED) | NOT_RUN) - texts


def test_the_readme_begins_with_the_two_commands():
    assert [command.text for command in commands()][:2] == ["./scripts/quickstart.sh", "./scripts/test.sh"]
    assert README.index("./scripts/test.sh") < 2500


def test_every_link_of_the_readme_leads_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            assert (REPOSITORY / target).exists(), target
