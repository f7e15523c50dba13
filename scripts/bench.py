#!/usr/bin/env python3
"""Measure speed and memory as ratios, side by side, and say whether each keeps its target.

``bench.py SUITE [--rounds N] [--json FILE]``, and the options of the suite itself (``--help``); ``bench.py --list`` names the
suites. A round measures both sides of every ratio one
after the other, in turns the one and the other first, so that what else the machine does hits both alike; a figure is the median of
its rounds. Each figure is one line: name, median, range, target, ``met`` or ``SHORT``. Lines that begin with ``#`` are the absolute
values behind the ratios: they hold for this machine and this moment only, and have no target. Exit code 0: all targets are met; 1:
one falls short; 2: the command line is wrong. A suite is a function in a file ``bench_*.py`` beside this one; see docs/performance.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

SCRIPTS = Path(__file__).resolve().parent

Options = Mapping[str, int | bool]
#: One round: takes its number (from 0), an empty folder of its own and the suite's options by name, gives a value by name. Names that
#: the suite declares as targets are figures; others must end in their unit (``_s``, ``_mb``, or ``_x``: times the floor) and are shown
#: as the values behind them.
Measure = Callable[..., Mapping[str, float]]
UNITS = ("_s", "_mb", "_x")


@dataclass(frozen=True)
class Target:
    """What a figure is held to: its median must be at most, or at least, ``limit``.

    ``only_with`` names an option of the suite without which it is not measured, ``unless`` a switch with which it is not.
    """

    name: str
    limit: float
    bound: Literal["at most", "at least"] = "at most"
    doc: str = ""
    only_with: str = ""
    unless: str = ""

    def is_measured_with(self, options: Options) -> bool:
        """Whether a round gives it under these options."""
        return (not self.only_with or bool(options[self.only_with])) and not (self.unless and options[self.unless])

    @property
    def condition(self) -> str:
        """What ``--list`` says of it."""
        if self.only_with:
            return f" (--{dashed(self.only_with)})"
        return f" (not with --{dashed(self.unless)})" if self.unless else ""


def dashed(name: str) -> str:
    """An option's name as the command line has it."""
    return name.replace("_", "-")


@dataclass(frozen=True)
class Option:
    """A setting of a suite: ``--<name>``, with dashes, and a whole number from 1; or a switch where ``default`` is False."""

    name: str
    default: int | bool
    doc: str


@dataclass(frozen=True)
class Suite:
    """A named set of targets and the function that measures one round of them."""

    name: str
    doc: str
    targets: tuple[Target, ...]
    measure: Measure
    options: tuple[Option, ...] = ()
    notes: Callable[[Options], Sequence[str]] = lambda options: ()

    def measured_with(self, options: Options) -> Suite:
        """The suite with the targets that are measured under these options."""
        return replace(self, targets=tuple(target for target in self.targets if target.is_measured_with(options)))


@dataclass(frozen=True)
class Figure:
    """A target and the values that the rounds gave, in their order."""

    target: Target
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool:
        """Whether the median keeps the target; what is no number keeps none."""
        return self.median <= self.target.limit if self.target.bound == "at most" else self.median >= self.target.limit

    def line(self, width: int = 0) -> str:
        """Name, median, range, target and verdict."""
        spread = f"{min(self.values):.2f} to {max(self.values):.2f}"
        target = f"{self.target.bound} {self.target.limit:.2f}"
        return f"{self.target.name:<{width}}  {self.median:8.2f}  {spread:>18}  {target:>14}  {'met' if self.is_met else 'SHORT'}"


SUITES: dict[str, Suite] = {}


def suite(
    name: str, *targets: Target, options: Sequence[Option] = (), notes: Callable[[Options], Sequence[str]] = lambda options: ()
) -> Callable[[Measure], Measure]:
    """Register the decorated function as a suite; its docstring's first line is what ``--list`` shows.

    ``options`` reach the function as keywords; ``notes`` says in lines what the figures do not: what was left out, what is missing.

    Raises:
        ValueError: the name is taken, there is no target, or two targets have one name.
    """

    def register(measure: Measure) -> Measure:
        names = [target.name for target in targets]
        if name in SUITES or not names or len(set(names)) != len(names):
            raise ValueError(f"suite {name!r} with the targets {names}: taken, empty or not unique")
        SUITES[name] = Suite(name, (measure.__doc__ or "").strip().split("\n", 1)[0], targets, measure, tuple(options), notes)
        return measure

    return register


def run_suite(
    chosen: Suite, rounds: int, tell: Callable[[str], None], options: Options | None = None
) -> tuple[list[Figure], dict[str, list[float]]]:
    """Measure a suite; returns its figures in the order of its targets, and the absolute values by name.

    Raises:
        ValueError: a round gave another set of names than it must.
    """
    measured: list[Mapping[str, float]] = []
    for number in range(rounds):
        tell(f"# round {number + 1} of {rounds}")
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            measured.append(chosen.measure(number, Path(folder), **(options or {})))
        tell("# " + ", ".join(f"{name}: {value:.2f}" for name, value in measured[-1].items()))
    declared = {target.name for target in chosen.targets}
    names = set(measured[0])
    for values in measured:
        unknown = [name for name in set(values) - declared if not name.endswith(UNITS)]
        if set(values) != names or declared - set(values) or unknown:
            raise ValueError(f"a round of {chosen.name} gave {sorted(values)}; its targets are {sorted(declared)}")
    figures = [Figure(target, tuple(values[target.name] for values in measured)) for target in chosen.targets]
    absolute = {name: [values[name] for values in measured] for name in measured[0] if name not in declared}
    return figures, absolute


def report(chosen: Suite, figures: Sequence[Figure], absolute: Mapping[str, Sequence[float]], notes: Sequence[str] = ()) -> list[str]:
    """The lines of a suite's result."""
    width = max(len(figure.target.name) for figure in figures)
    lines = [figure.line(width) for figure in figures]
    for name, values in absolute.items():
        lines.append(f"# {name}: {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
    lines += [f"# {note}" for note in notes]
    short = sum(not figure.is_met for figure in figures)
    return [*lines, f"# {chosen.name}: {len(figures)} figures, {short} short"]


def document(
    chosen: Suite,
    figures: Sequence[Figure],
    absolute: Mapping[str, Sequence[float]],
    options: Options,
    notes: Sequence[str] = (),
) -> dict[str, object]:
    """The result as ``--json`` writes it."""
    return {
        "suite": chosen.name,
        "rounds": len(figures[0].values),
        "options": dict(options),
        "met": all(figure.is_met for figure in figures),
        "figures": [
            {**asdict(figure.target), "median": figure.median, "values": list(figure.values), "met": figure.is_met} for figure in figures
        ],
        "absolute": {name: {"median": statistics.median(values), "values": list(values)} for name, values in absolute.items()},
        "notes": list(notes),
    }


def load_suites() -> None:
    """Import every ``bench_*.py`` beside this file."""
    sys.path[:0] = [entry for entry in (str(SCRIPTS), str(SCRIPTS.parent)) if entry not in sys.path]
    for path in sorted(SCRIPTS.glob("bench_*.py")):
        importlib.import_module(path.stem)


def positive(text: str) -> int:
    """A number of rounds or rows."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def _options(parser: argparse.ArgumentParser, chosen: Suite, given: argparse.Namespace) -> dict[str, int | bool]:
    """The suite's options; one that is given and not the suite's is refused."""
    own = {option.name: option.default for option in chosen.options}
    for name in {option.name for known in SUITES.values() for option in known.options}:
        if (value := getattr(given, name)) is None:
            continue
        if name not in own:
            parser.error(f"{chosen.name} takes no --{dashed(name)}")
        own[name] = value
    return own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    load_suites()
    parser = argparse.ArgumentParser(description="Measure speed and memory as ratios, side by side, against targets.")
    parser.add_argument("suite", nargs="?", choices=sorted(SUITES), help="what to measure")
    parser.add_argument("--rounds", type=positive, default=5, help="the median of so many counts (default: 5)")
    parser.add_argument("--json", type=Path, help="file for the figures of every round")
    parser.add_argument("--list", action="store_true", help="name the suites and their targets")
    for option in {option.name: option for known in SUITES.values() for option in known.options}.values():
        kind = {"action": "store_true"} if option.default is False else {"type": positive}
        parser.add_argument(f"--{dashed(option.name)}", default=None, help=option.doc, **kind)
    given = parser.parse_args(arguments)
    if given.list:
        for known in SUITES.values():
            print(f"{known.name}: {known.doc}")
            for target in known.targets:
                print(f"  {target.name}: {target.bound} {target.limit:.2f}. {target.doc}{target.condition}")
        return 0
    if given.suite is None:
        parser.error("name a suite, or ask for --list")
    options = _options(parser, SUITES[given.suite], given)
    # Ended from outside it ends as any program does: what a suite has started and written goes with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    chosen = SUITES[given.suite].measured_with(options)
    figures, absolute = run_suite(chosen, given.rounds, lambda line: print(line, file=sys.stderr), options)
    notes = chosen.notes(options)
    print("\n".join(report(chosen, figures, absolute, notes)))
    if given.json:
        given.json.write_text(json.dumps(document(chosen, figures, absolute, options, notes), indent=1) + "\n", encoding="utf-8")
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    # Under its own name, so that the suites register in the module that runs them.
    sys.path.insert(0, str(SCRIPTS))
    sys.exit(importlib.import_module("bench").main())
