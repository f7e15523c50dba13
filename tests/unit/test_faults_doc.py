"""The fault matrix in the documentation is numbered without gaps, and every fault test names a row of it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MATRIX = REPOSITORY / "docs" / "faults.md"


def rows_of_the_matrix(text: str) -> dict[int, list[str]]:
    """Number to the cells after it, of every row that begins with a number."""
    rows: dict[int, list[str]] = {}
    for line in text.splitlines():
        if match := re.match(r"\| (\d+) \|", line):
            number = int(match[1])
            assert number not in rows, f"row {number} is there twice"
            rows[number] = [cell.strip() for cell in line.strip().strip("|").split(" | ")[1:]]
    return rows


def fault_numbers(source: str) -> tuple[set[int], list[str]]:
    """The numbers of all `fault` marks in a Python source, and the marks that carry no literal number."""
    nodes = list(ast.walk(ast.parse(source)))
    marks = [node for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node).endswith("pytest.mark.fault")]
    arguments = {id(node.func): node.args for node in nodes if isinstance(node, ast.Call)}
    numbers: set[int] = set()
    unreadable: list[str] = []
    for mark in marks:
        literals = [node.value for node in arguments.get(id(mark), []) if isinstance(node, ast.Constant)]
        if literals and len(literals) == len(arguments[id(mark)]) and all(type(value) is int for value in literals):
            numbers.update(literals)
        else:
            unreadable.append(f"line {mark.lineno}")
    return numbers, unreadable


def test_matrix_is_numbered_from_1_without_gap_and_every_row_is_complete() -> None:
    rows = rows_of_the_matrix(MATRIX.read_text(encoding="utf-8"))
    assert list(rows) == list(range(1, len(rows) + 1))
    for number, cells in rows.items():
        assert len(cells) == 3 and all(cells), f"row {number}: {cells}"


def test_every_fault_mark_of_a_test_names_a_row_of_the_matrix() -> None:
    rows = rows_of_the_matrix(MATRIX.read_text(encoding="utf-8"))
    unknown: dict[str, set[int]] = defaultdict(set)
    for path in sorted((REPOSITORY / "tests").rglob("*.py")):
        numbers, unreadable = fault_numbers(path.read_text(encoding="utf-8"))
        assert not unreadable, f"{path}: a fault mark needs its row's number as a literal: {unreadable}"
        if missing := numbers - set(rows):
            unknown[path.name] |= missing
    assert not unknown


def test_all_ten_invariants_are_there() -> None:
    text = MATRIX.read_text(encoding="utf-8")
    assert re.findall(r"^\| (I\d+) \|", text, flags=re.MULTILINE) == [f"I{number}" for number in range(1, 11)]


@pytest.mark.parametrize(
    ("source", "numbers", "refused"),
    [
        ("@pytest.mark.fault(7)\ndef test_x(): ...", {7}, 0),
        ("@pytest.mark.fault(7)\n@pytest.mark.fault(9, 11)\ndef test_x(): ...", {7, 9, 11}, 0),
        ("pytestmark = [pytest.mark.fault(3)]", {3}, 0),
        ("pytest.param(1, marks=pytest.mark.fault(26))", {26}, 0),
        ("@pytest.mark.fault\ndef test_x(): ...", set(), 1),
        ("@pytest.mark.fault()\ndef test_x(): ...", set(), 1),
        ("@pytest.mark.fault(N)\ndef test_x(): ...", set(), 1),
        ("'@pytest.mark.fault(99)'", set(), 0),
    ],
)
def test_marks_are_found_wherever_pytest_allows_them(source: str, numbers: set[int], refused: int) -> None:
    found, unreadable = fault_numbers(source)
    assert (found, len(unreadable)) == (numbers, refused)
