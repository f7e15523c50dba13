"""The shape of the code: imports point one way, luigi stays where it belongs, no file outgrows its noun."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PIPELINE = Path(__file__).parents[2] / "pipeline"
MAX_LINES = 450

STAGES = ("download", "extract", "transform", "load")
#: A unit (a file or folder of pipeline/) imports units of a lower level, and itself: so no two stages know each other.
LEVELS = {
    "__init__": 0, "errors": 0, "configuration": 0, "processes": 0,
    "disclosure": 1, "text_table": 1, "handoff": 1, "bandwidth": 1, "inflate": 1,
    "catalog": 2, "database": 2, "releases": 2, "scheduler": 2, "services": 2,
    **dict.fromkeys(STAGES, 3), "settings": 3, "status": 3, "housekeeping": 3,
    "diff": 4, "examples": 4, "gate_report": 4, "observe": 4, "targets": 4, "outcome": 4, "plan": 4, "quarantine": 4, "terminal": 4, "verify": 4,
    "tasks": 5, "runner": 5,
    "cli_gate": 6, "cli_history": 6, "cli_plan": 6, "cli_quarantine": 6, "orchestrator": 6,
    "cli": 7,
    "__main__": 8,
}  # fmt: skip
LUIGI_ALLOWED = {"tasks", "targets", "settings", "observe"}
#: Below the orchestration only loading talks to PostgreSQL.
NO_DATABASE = {"catalog", "download", "extract", "transform"}


def imported(module, source):
    """Every module that a module's source imports anywhere, also inside functions and for types alone."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: len(module.split(".")) - node.level] if node.level else []
            base = ".".join([*package, *filter(None, [node.module])])
            # "from pipeline import configuration" names a module, "from pipeline import __version__" the package itself.
            yield from (f"{base}.{alias.name}" for alias in node.names) if base == "pipeline" else (base,)


def unit_of(module):
    """The unit that a dotted name is of; None outside this project."""
    names = module.split(".")
    if names[0] != "pipeline":
        return None
    return names[1] if len(names) > 1 and names[1] in LEVELS else "__init__"


def violations(module, source):
    """What a module imports against the rules, one sentence each."""
    unit = unit_of(module)
    found = []
    for name in imported(module, source):
        other = unit_of(name)
        if other is not None and other != unit and LEVELS[other] >= LEVELS[unit]:
            found.append(f"{module} imports {name}")
        if name.split(".")[0] == "luigi" and unit not in LUIGI_ALLOWED:
            found.append(f"{module} imports luigi")
        if other == "database" and unit in NO_DATABASE:
            found.append(f"{module} imports the database")
    return found


def modules():
    for path in sorted(PIPELINE.rglob("*.py")):
        names = ["pipeline", *path.relative_to(PIPELINE).with_suffix("").parts]
        yield ".".join(names), path


def test_every_file_and_folder_of_the_package_has_a_level():
    units = {path.name for path in PIPELINE.iterdir() if (path / "__init__.py").is_file()}
    units |= {path.stem for path in PIPELINE.glob("*.py")}
    assert units == set(LEVELS), "give a new unit its level here, and its line in the architecture"


def test_imports_point_one_way():
    assert [sentence for module, path in modules() for sentence in violations(module, path.read_text())] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pipeline.transform.reader", "from pipeline.extract.cut import LineCutter"),
        ("pipeline.transform.reader", "from ..extract.cut import LineCutter"),
        ("pipeline.transform.reader", "def read():\n    from pipeline.load import copy"),
        ("pipeline.transform.reader", "from pipeline.database.engine import transaction"),
        ("pipeline.extract.cut", "import luigi.util"),
        ("pipeline.catalog.load", "from luigi import Task"),
        ("pipeline.database.engine", "from pipeline.settings import process_settings"),
        ("pipeline.database.engine", "from pipeline import settings"),
        ("pipeline.errors", "import pipeline.handoff"),
        ("pipeline.runner", "from pipeline.tasks.sync import SyncAll"),
        ("pipeline.load.manager", "if TYPE_CHECKING:\n    from pipeline.tasks import SyncAll"),
    ],
)
def test_an_import_against_the_rules_is_found(module, source):
    assert violations(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pipeline.load.manager", "from pipeline.database import ledger\nfrom . import staging\nfrom .copy import copy_rows"),
        ("pipeline.download.request", "from pipeline import __version__\nimport requests"),
        ("pipeline.tasks.load", "import luigi\nfrom pipeline.load.manager import LoadManager"),
    ],
)
def test_an_import_within_the_rules_is_not_reported(module, source):
    assert violations(module, source) == []


def test_no_file_is_longer_than_450_lines():
    lengths = {module: len(path.read_text().splitlines()) for module, path in modules()}
    assert {module: lines for module, lines in lengths.items() if lines > MAX_LINES} == {}


IMPORT_ALL = """
import importlib, pkgutil, sys
for unit in sys.argv[1:]:
    package = importlib.import_module(f"pipeline.{unit}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    found = sorted(name for name in sys.modules if name.split(".")[0] == "luigi")
    assert not found, f"after pipeline.{unit}: {found[:3]}"
"""


@pytest.mark.parametrize("units", [("catalog", "database"), *((stage,) for stage in STAGES)], ids=" ".join)
def test_a_stage_is_imported_without_luigi(units):
    program = [sys.executable, "-c", IMPORT_ALL, *units]
    done = subprocess.run(program, cwd=PIPELINE.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


STATEMENTS = {"execute": 0, "executemany": 0, "mogrify": 0, "copy_expert": 0, "SQL": 0, "execute_values": 1}


def formatted_statements(source):
    """The lines on which SQL is made of anything else than constants (``IN_CAPITALS``) by means that quote nothing."""
    for node in ast.walk(ast.parse(source)):
        name = getattr(getattr(node, "func", None), "attr", getattr(getattr(node, "func", None), "id", None))
        if name in STATEMENTS and len(node.args) > STATEMENTS[name] and not is_constant(node.args[STATEMENTS[name]]):
            yield node.lineno


def is_constant(text):
    """Whether a statement is given as it is, or composed by psycopg2.sql."""
    if isinstance(text, ast.JoinedStr):
        return all(is_known(part.value) for part in text.values if isinstance(part, ast.FormattedValue))
    if isinstance(text, ast.Call) and getattr(text.func, "attr", "") == "format":
        return not is_known(text.func.value)
    return not isinstance(text, ast.BinOp)


def is_known(value):
    if isinstance(value, ast.IfExp):
        return is_known(value.body) and is_known(value.orelse)
    # A lock is one of a Literal's words.
    return isinstance(value, ast.Constant) or (isinstance(value, ast.Name) and (value.id.isupper() or value.id == "lock"))


def test_identifiers_reach_a_statement_through_the_compiler_alone():
    found = {module: list(formatted_statements(path.read_text())) for module, path in modules()}
    assert {module: lines for module, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "statement",
    [
        'cursor.execute(f"select * from {table}")',
        'cursor.execute("select * from " + table)',
        'cursor.execute("select * from %s" % table)',
        'cursor.execute("select * from {}".format(table))',
        'execute_values(cursor, f"insert into {table} values %s", rows)',
        'sql.SQL(f"select * from {A if is_a else table}")',
    ],
)
def test_an_identifier_that_is_formatted_in_is_found(statement):
    assert list(formatted_statements(statement)) == [1]
    assert list(formatted_statements(statement.replace("table", "TABLE"))) == ([] if "f\"" in statement else [1])
