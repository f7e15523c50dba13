"""The installed wheel is whole: it runs from anywhere, with what it carries, and knows nothing of the checkout.

The wheel is built once from a copy of the sources and installed into a virtual environment whose dependencies are links to those
of this interpreter. There is no way from there to the checkout.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from pipeline import services

REPOSITORY = Path(__file__).parents[2]
SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "pipeline", "config", "schemas")
#: What the project's own installation puts beside the dependencies.
OURS = ("pipeline", "hcad_pipeline", "__editable__")
#: Variables that could lead a program to the checkout, or to another database than the test's.
LEADING_HOME = ("PYTHON", "LUIGI", "HCAD", "VIRTUAL_ENV", "DATABASE_URL")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built without leaving anything in the checkout or taking anything old from it."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, copy = REPOSITORY / name, folder / "sources" / name
        copy.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, copy)
    pip("wheel", str(folder / "sources"), "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of a virtual environment that has the wheel and its dependencies, and not the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    packages = next(folder.glob("lib/python*/site-packages"))
    for dependencies in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(dependencies).iterdir():
            if not entry.name.startswith(OURS) and entry.suffix != ".pth" and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)
    without = python(folder, folder, "-c", "import pipeline", check=False)
    assert "No module named 'pipeline'" in without.stderr, "the checkout, or another installation, can be imported"
    pip("--python", str(folder / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel))
    return folder


@pytest.fixture
def elsewhere(tmp_path):
    """A working folder that has nothing to do with the project."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@pytest.fixture
def sample(tmp_path):
    """The sample bundle, served; its URL without a path."""
    server = services.start_sample_server(
        tmp_path / "served", root=REPOSITORY / "tests" / "fixtures" / "sample", script=REPOSITORY / "scripts" / "sample_server.py"
    )
    yield server.url.rstrip("/")
    services.stop_all(tmp_path / "served")


def pip(*arguments):
    # pip takes what it finds on PYTHONPATH for installed.
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], env=ours, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def execute(program, cwd, environment, check=True):
    ours = {name: value for name, value in os.environ.items() if not name.startswith(LEADING_HOME)}
    done = subprocess.run(
        list(map(str, program)), cwd=cwd, env=ours | {"PATH": "/usr/bin:/bin"} | environment, capture_output=True, text=True, timeout=120
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def python(installed, cwd, *arguments, check=True, **environment):
    return execute([installed / "bin" / "python", *arguments], cwd, environment, check)


def test_the_wheel_carries_every_schema_configuration_and_migration_file(wheel):
    carried = set(zipfile.ZipFile(wheel).namelist())
    expected = set()
    for folder, place in (("pipeline", "pipeline"), ("schemas", "pipeline/shipped/schemas"), ("config", "pipeline/shipped/config")):
        files = (path for path in (REPOSITORY / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        expected |= {f"{place}/{path.relative_to(REPOSITORY / folder)}" for path in files}
    assert len(expected) > 80
    assert {name for name in carried if name.startswith("pipeline/")} == expected


def test_the_wheel_states_licence_python_and_command(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nRequires-Python: <3.14,>=3.11\n" in metadata
    assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    commands = archive.read(next(name for name in archive.namelist() if name.endswith("/entry_points.txt"))).decode()
    assert "hcad-pipeline = pipeline.cli:main" in commands


def test_the_command_and_the_module_give_the_same_help(installed, elsewhere):
    by_module = python(installed, elsewhere, "-m", "pipeline", "--help").stdout
    by_command = execute([installed / "bin" / "hcad-pipeline", "--help"], elsewhere, {}).stdout
    assert "rollback" in by_module
    assert by_command.split("\n", 1)[1] == by_module.split("\n", 1)[1]


WHERE = """
import os
from pipeline import configuration
from pipeline.catalog import load_catalog, shipped_schemas
from pipeline.database.migrate import shipped_migrations
print(configuration.use_configuration())
print(configuration.checkout())
print(shipped_schemas())
print(len(shipped_migrations()))
for profile in ("production", "sample"):
    print(*(f"{source.name}:{len(source.tables)}" for source in load_catalog(profile=profile).values()))
"""


def test_schemas_configuration_and_migrations_are_those_of_the_wheel(installed, elsewhere):
    done = python(installed, elsewhere, "-c", WHERE, SAMPLE_SERVER_URL="http://127.0.0.1:1")
    config, checkout, schemas, migrations, production, sample = done.stdout.splitlines()
    assert Path(config).is_relative_to(installed)
    assert Path(config).is_file()
    assert checkout == "None"
    assert Path(schemas).is_relative_to(installed)
    assert int(migrations) == len(list((REPOSITORY / "pipeline" / "database" / "migrations").glob("*.sql")))
    own = len(list((REPOSITORY / "schemas" / "hcad").glob("*.toml"))) - 1
    shared = len(list((REPOSITORY / "schemas" / "pacs").glob("*.toml")))
    assert production == f"hcad:{own} travis:{shared}"
    assert sample == f"hcad:4 travis:{shared}"


@pytest.mark.parametrize(("source", "year", "tables"), [("hcad", 2025, 3), ("travis", 2019, 4)])
def test_a_run_of_the_wheel_goes_from_the_archive_to_published(installed, elsewhere, tmp_path, database_url, sample, source, year, tables):
    environment = {"DATABASE_URL": database_url, "HCAD_PIPELINE_STATE": str(tmp_path / "state"), "SAMPLE_SERVER_URL": sample}
    command = ("-m", "pipeline", "--profile", "sample", "run", "--local-scheduler", "--source", source, "--year", str(year))
    first = python(installed, elsewhere, *command, **environment)
    assert f"{source} {year}: published" in first.stdout
    again = python(installed, elsewhere, *command, "--as-of", "2099-01-01T00:00:00", **environment)
    assert f"{source} {year}: unchanged" in again.stdout
    count = "select count(*) from etl.import_table where disposition = 'staged' and rows_loaded > 0"
    asked = python(installed, elsewhere, "-m", "pipeline", "query", "--csv", count, **environment)
    assert asked.stdout.splitlines()[1] == str(tables)
    assert list(elsewhere.iterdir()) == [], "the working folder stays as it was"
    log = next((tmp_path / "state" / "logs").glob("*.log")).read_text()
    assert str(REPOSITORY / "pipeline") not in log
