"""The documents keep up with the code: every error, command, option, setting and variable has its place in them."""

import configparser
import inspect
import re
from pathlib import Path

import click
import pytest

from pipeline import configuration, errors
from pipeline.cli import cli
from pipeline.database.embedded_places import BINDIR_VARIABLE

REPOSITORY = Path(__file__).parents[2]
OPERATIONS = (REPOSITORY / "docs" / "operations.md").read_text()
README = (REPOSITORY / "README.md").read_text()
DOCUMENTS = [REPOSITORY / name for name in ("README.md", "CHANGELOG.md", "schemas/README.md")] + sorted((REPOSITORY / "docs").rglob("*.md"))

#: The errors that have a code of their own, by code.
ERRORS = {
    found.__dict__["code"]: found
    for found in vars(errors).values()
    if inspect.isclass(found) and issubclass(found, errors.PipelineError) and "code" in found.__dict__
}
COMMANDS = sorted(cli.commands)
OPTIONS = sorted(
    {
        (name, option)
        for name, command in [("", cli), *cli.commands.items()]
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.is_eager
        for option in parameter.opts
    }
)


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", OPERATIONS, flags=re.MULTILINE)
    return {title: text for title, text in zip(parts[1::2], parts[2::2], strict=True) if title.startswith("E_")}


def anchors(text: str) -> set[str]:
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)}


def test_every_error_has_one_section_and_every_section_an_error():
    titles = re.findall(r"^## (E_\w+)$", OPERATIONS, flags=re.MULTILINE)
    assert titles == list(ERRORS)


def test_no_two_errors_share_a_code():
    classes = [found for found in vars(errors).values() if inspect.isclass(found) and issubclass(found, errors.PipelineError)]
    assert len({found.code for found in classes}) == len(classes)


@pytest.mark.parametrize("code", ERRORS)
def test_an_errors_section_states_its_exit_code_and_whether_the_release_is_held(code):
    text = sections()[code]
    assert text.strip().startswith(f"Exit code {ERRORS[code].exit_code}")
    assert ERRORS[code].holds_release == ("the release is held" in text)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_and_has_help(name):
    assert f"`hcad-pipeline {name}" in OPERATIONS
    assert cli.commands[name].help


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_every_option_is_documented(command, option):
    lines = [line for line in (OPERATIONS + README).splitlines() if not command or command == "run" or f"hcad-pipeline {command}" in line]
    assert any(re.search(rf"{option}\b", line) for line in lines)


def test_every_exit_code_is_in_the_readme():
    codes = {str(found.exit_code) for found in ERRORS.values()} | {"0", "35"}
    rows = re.findall(r"^\| ([\d, ]+) \|", README, flags=re.MULTILINE)
    assert {code for row in rows for code in row.split(", ")} == codes


@pytest.mark.parametrize(
    "variable", ["DATABASE_URL", "LUIGI_CONFIG_PATH", BINDIR_VARIABLE, configuration.STATE, configuration.PROFILE, configuration.MIRROR]
)
def test_every_variable_is_documented(variable):
    assert f"`{variable}`" in OPERATIONS


def test_settings_that_the_documents_name_are_in_the_configuration():
    shipped = configparser.ConfigParser(interpolation=None)
    shipped.read(REPOSITORY / "config" / "luigi.cfg")
    named = set(re.findall(r"`\[(\w+)\] (\w+)`", README + OPERATIONS))
    assert named
    for section, key in named:
        assert shipped.has_option(section, key), f"[{section}] {key}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_link_inside_the_documents_leads_somewhere(document):
    text = document.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text()), target


def test_every_decision_is_numbered_once():
    numbers = [path.name[:4] for path in sorted((REPOSITORY / "docs" / "decisions").glob("*.md"))]
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
