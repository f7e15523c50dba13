#!/usr/bin/env python3
"""Run the pipeline many times over, break each run in one to three ways, and see whether the next runs put it right by themselves.

``soak.py [--runs N] [--seed S]``: each run takes a tiny county of four tables from one published release to another one, to its first, or
back by a rollback, and is hit by real faults at chosen places (soak_faults.py, soak_process.py). After each fault what readers see must
be one release, whole (soak_invariants.py). Then the same command is simply run again, as a nightly does: the first one that nobody
disturbs must end with 0, with the content of an undisturbed run, with nothing left over, and the next one must write nothing. Every tenth
run is a real ``hcad-pipeline run`` killed at a moment of the clock. ``--only NUMBER`` repeats one run of a seed. The last lines are
the rate, the pace and the faults; exit code 1 when a run did not converge.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime as dt
import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [entry for entry in (str(SCRIPTS), str(SCRIPTS.parent)) if entry not in sys.path]

import soak_invariants as invariants  # noqa: E402
from soak_county import SOURCE, YEAR  # noqa: E402
from soak_faults import FAULTS, LUIGI, Attempt, Fault, go_on  # noqa: E402
from soak_ground import County, Ground, ground, living_children, state_of  # noqa: E402
from soak_process import TELL, Place, Process  # noqa: E402

#: A disturbed command that has not ended by then hangs.
ATTEMPT_S = 150.0
AS_OF = dt.datetime(2026, 1, 1)
NOTHING = ""


@dataclass(frozen=True)
class Journey:
    """What a run is about: from a template, by a command, to the content of a release."""

    name: str
    template: tuple[str, ...]
    goal: str
    offered: str
    is_rollback: bool = False
    share: int = 1

    @property
    def before(self) -> str:
        """The release that is live at first."""
        return self.template[-1] if self.template else NOTHING


JOURNEYS = (
    Journey("first release", (), "A", "A", share=3),
    Journey("refresh", ("A",), "B", "B", share=5),
    Journey("former release again", ("A", "B"), "A", "A"),
    Journey("rollback", ("A", "B"), "A", "B", is_rollback=True, share=2),
)


@dataclass
class Known:
    """What undisturbed runs have shown: the contents, the states to begin with, and the places of each journey."""

    contents: dict[str, invariants.Content] = field(default_factory=dict)
    templates: dict[tuple[str, ...], County] = field(default_factory=dict)
    places: dict[str, list[Place]] = field(default_factory=dict)


@dataclass
class Told:
    """How one run went."""

    number: int
    journey: Journey
    kind: str
    faults: list[str] = field(default_factory=list)
    missed: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def line(self) -> str:
        """One line, and one for each thing that is wrong."""
        word = "FAILED" if self.wrong else "ok"
        head = f"{word:6} {self.number:4} {self.seconds:5.1f} s  {self.journey.name} by {self.kind}: {'; '.join(self.faults)}"
        return "\n".join([head, *(f"       {wrong}" for wrong in self.wrong)])


class Run:
    """One run: a county, its faults, and the attempts until it is where it should be."""

    def __init__(self, known: Known, on: Ground, number: int, seed: int, journey: Journey | None = None) -> None:
        self.dice = random.Random(f"{seed}/{number}")
        self.known, self.ground = known, on
        name = f"undisturbed_{len(known.templates)}" if journey else f"run_{number}"
        journey = journey or self.dice.choices(JOURNEYS, [journey.share for journey in JOURNEYS])[0]
        kind = "command" if number % 10 == 5 else self.dice.choices(["run", "luigi"], [3, 1])[0]
        self.told = Told(number, journey, "run" if journey.is_rollback and kind == "luigi" else kind)
        self.county = on.make(name, known.templates[journey.template])
        self.attempts, self.frozen = 0, list[Process]()

    def go(self) -> Told:
        """All of it."""
        began = time.monotonic()
        try:
            places = [self._place() for _ in range(self.dice.choices([1, 2, 3], [5, 3, 2])[0])]
            # In the order of the journey: a later attempt goes on where an earlier one was broken off.
            for place in sorted(places, key=self.known.places[self.told.journey.name].index):
                self._command() if self.told.kind == "command" else self._disturbed(place)
            self._undisturbed()
        except (AssertionError, TimeoutError) as error:
            self.told.wrong.append(f"{type(error).__name__}: {error}")
        if self.told.wrong:
            self._kill_strays()
        self.told.seconds = time.monotonic() - began
        return self.told

    def line(self, kind: str) -> list[str]:
        """The next attempt's command line."""
        journey = self.told.journey
        # Sometimes the same instant again, as a person would, and sometimes the next night.
        self.attempts += self.dice.random() < 0.7
        as_of = AS_OF + dt.timedelta(days=1 + self.attempts + 100 * len(journey.template))
        if journey.is_rollback and self.county.sql("select 1 from etl.import where import_id = 2 and state = 'published'"):
            return ["hcad-pipeline", "rollback", "2", "--reason", "soak"]
        if kind == "luigi":
            return ["luigi", "--module", "pipeline.tasks", "SyncSource", "--source", SOURCE, "--year", str(YEAR), "--as-of",
                    as_of.strftime("%Y-%m-%dT%H%M%S"), "--workers", "2", "--local-scheduler", "--no-lock"]  # fmt: skip
        return ["hcad-pipeline", "run", "--source", SOURCE, "--year", str(YEAR), "--local-scheduler", "--as-of", as_of.isoformat()]

    def start(self, line: Sequence[str], stop_at: Place | None = None, url: str | None = None, record: Path | None = None) -> Process:
        """Start a command in the county."""
        environment = self.county.environment(self.told.journey.offered, url)
        return Process(line, environment, self.county.logs / "output.log", stop_at=stop_at, record=record)

    # ------------------------------------------------------------------------------------------------- one attempt each

    def _disturbed(self, place: Place) -> None:
        # A plain luigi has no lock whose end would tell that it is frozen.
        faults = [fault for fault in FAULTS if self.told.kind == "run" or not fault.name.startswith("frozen")]
        fault = self.dice.choices(faults, [fault.share for fault in faults])[0]
        line = self.line(self.told.kind)
        with fault.around(self.county):
            process = self.start(line, place, self.ground.proxied(self.county.url) if fault.is_proxied else None)
            stopped = process.stopped(ATTEMPT_S)
            if stopped is None:
                self.told.missed += 1
                done = False
            else:
                done = fault.at(Attempt(self.county, process, stopped, self.dice, lambda: self._second(line)))
            if stopped and fault.name.startswith("frozen"):
                self.frozen.append(process)
            else:
                self._end(process, fault, line)
        # A condition has held for the whole attempt, wherever that ended.
        effect = "" if done or fault.at is go_on else " (not reached)" if stopped is None else " (without effect)"
        self.told.faults.append(f"{fault.name} at {place}{effect}")
        self.ground.until_up()
        self._check_published({self.told.journey.before, self.told.journey.goal})

    def _place(self) -> Place:
        """A process of the journey, then a kind of place in it, then one of these: rare ones are met as often as common ones."""
        places = [place for place in self.known.places[self.told.journey.name] if self.told.kind != "luigi" or place.process != "run"]
        process = self.dice.choice(sorted({place.process for place in places}))
        kind = self.dice.choice(sorted({place.kind for place in places if place.process == process}))
        return self.dice.choice([place for place in places if (place.process, place.kind) == (process, kind)])

    def _second(self, line: Sequence[str]) -> int | None:
        process = self.start(line)
        code = process.wait(15)
        if code is None:
            os.kill(process.pid, signal.SIGTERM)
            code = process.wait(15)
        process.close()
        return code

    def _end(self, process: Process, fault: Fault, line: Sequence[str]) -> None:
        code = process.wait(ATTEMPT_S)
        if code is None:
            where = self._where([process.pid, *living_children(process.pid)])
            process.wait(5)
        process.close()
        assert code is not None, f"{fault.name}: it hangs\n{where}"
        right = LUIGI if line[0] == "luigi" else fault.codes | ({31} if self.told.journey.is_rollback else set())
        assert code < 0 or code in right, f"I6: exit code {code} after {fault.name}\n{self.logs()}"

    def _where(self, tree: Sequence[int]) -> str:
        """Where the processes of a command hang, and what they have said; they are killed."""
        for pid in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, TELL)
        time.sleep(2)
        told = "\n".join(state_of(pid) for pid in tree) + "\n" + self.logs()
        for pid in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return told

    def _command(self) -> None:
        """A real command, killed at a moment of the clock with all that it has started."""
        line = [sys.executable, "-m", "pipeline", *self.line("run")[1:]]
        moment_s = self.dice.uniform(0.5, 3.5)
        with open(self.county.logs / "output.log", "a", encoding="utf-8") as out:
            environment = os.environ | self.county.environment(self.told.journey.offered)
            process = subprocess.Popen(line, env=environment, stdout=out, stderr=out, cwd=SCRIPTS.parent, start_new_session=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment_s)
        for pid in (process.pid, *living_children(process.pid)) if process.poll() is None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        self.told.faults.append(f"SIGKILL of everything after {moment_s:.1f} s{'' if process.returncode < 0 else ' (without effect)'}")
        self._check_published({self.told.journey.before, self.told.journey.goal})

    def _undisturbed(self) -> None:
        journey = self.told.journey
        line = self.line(self.told.kind)
        # A release that was taken back is held: a nightly does no work, and says that a person must look.
        held = 31 if journey.is_rollback else 0
        if not self._expect(line, held if line[1] == "run" else 0, beside=self.frozen):
            return
        self._wake()
        self._check_published({journey.goal})
        imports, last = self._imports(), self._last_run()
        self._expect(self.line("run"), held)
        if self._imports() != imports:
            self.told.wrong.append(f"I3: a further run wrote: {imports}, then {self._imports()}")
        self._check_published({journey.goal})
        if [run[2] for run in invariants.runs_since(self.county, last)] != [held]:
            self.told.wrong.append(f"I10: the last run is not in the history as it ended: {invariants.runs_since(self.county, last)}")
        self.told.wrong += self.until_settled()

    def _expect(self, line: Sequence[str], right: int = 0, beside: Sequence[Process] = ()) -> bool:
        code = self._attempt(line)
        if code == 30 and beside:
            # What is frozen on this very machine may hold the archive that it was downloading, and nobody takes that from it.
            self._wake()
            code = self._attempt(line)
        if code != right:
            self.told.wrong.append(f"I3, I6: {' '.join(line[:3])} ended with {code}, nobody disturbed it\n{self.logs()}")
        return code == right

    def _attempt(self, line: Sequence[str]) -> int | None:
        process = self.start(line)
        code = process.wait(ATTEMPT_S)
        process.close()
        return code

    def _wake(self) -> None:
        """What was frozen wakes up and finds itself taken over; it ends, and so does all that killed runs have left."""
        for process in self.frozen:
            for pid in (process.pid, *living_children(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            code = process.wait(ATTEMPT_S)
            process.close()
            # It was frozen before it had the lock, or after its work: then that is all.
            assert code in (0, 10, 30, 31), f"I6: exit code {code} of a run that was taken over"
        self.frozen.clear()
        deadline = time.monotonic() + ATTEMPT_S
        while strays := self.ground.strays():
            assert time.monotonic() < deadline, f"I7: processes that do not end: {strays}"
            time.sleep(0.05)

    def _kill_strays(self) -> None:
        for pid in self.ground.strays():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # ------------------------------------------------------------------------------------------------------- questions

    def _check_published(self, expected: set[str]) -> None:
        if wrong := invariants.published(self.county, self.known.contents, expected):
            raise AssertionError("; ".join(wrong) + self.logs())

    def until_settled(self) -> list[str]:
        """What is left over after a moment: a session that ends needs one."""
        deadline = time.monotonic() + 30
        while (wrong := invariants.settled(self.county)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return wrong

    def _imports(self) -> list[object]:
        return self.county.sql("select import_id, state, published_at, (select count(*) from etl.change) from etl.import order by 1")

    def _last_run(self) -> int:
        return int(self.county.sql("select coalesce(max(run_id), 0) from etl.run")[0][0])

    def logs(self) -> str:
        """The ends of what the last commands said."""
        texts = [self.county.logs / "output.log", *sorted((self.county.state / "logs").glob("*.log"))[-1:]]
        return "\n".join(path.read_text(errors="replace")[-6000:] for path in texts if path.exists())


def learn(on: Ground) -> Known:
    """Take each journey undisturbed, and note what comes of it and which places it passes."""
    empty = on.make("nothing")
    empty.state.mkdir()
    known = Known({NOTHING: invariants.content(empty)}, {(): empty})
    for journey in JOURNEYS:
        if journey.name == "former release again":
            continue
        told = Run(known, on, 0, 0, journey)
        record = told.county.logs / "places.jsonl"
        process = told.start(told.line("run"), record=record)
        code = process.wait(ATTEMPT_S)
        process.close()
        if code != 0:
            raise SystemExit(f"undisturbed, {journey.name} ended with {code}\n{told.logs()}")
        if known.contents.setdefault(journey.goal, invariants.content(told.county)) == known.contents[journey.before]:
            raise SystemExit(f"undisturbed, {journey.name} changed nothing")
        known.templates.setdefault((*journey.template, journey.goal), told.county)
        known.places[journey.name] = [Place(**json.loads(line)) for line in record.read_text().splitlines()]
        if wrong := invariants.published(told.county, known.contents, {journey.goal}) + told.until_settled():
            raise SystemExit(f"undisturbed, {journey.name}: {wrong}")
    known.places["former release again"] = known.places["refresh"]
    return known


def soak(seed: int, numbers: Sequence[int], tell: Callable[[str], None]) -> int:
    """Do these runs; returns how many did not converge."""
    counted: Counter[str] = Counter()
    failed, hit = 0, 0
    with ground() as on:
        os.environ["LUIGI_CONFIG_PATH"] = str(on.config)  # before Luigi is imported
        import pipeline.cli
        import pipeline.orchestrator
        import pipeline.tasks  # noqa: F401  # what every fork has then

        gc.collect()
        gc.freeze()
        began = time.monotonic()
        known = learn(on)
        tell(f"seed {seed}: {len(numbers)} runs; {sum(map(len, known.places.values()))} places; learnt in {time.monotonic() - began:.1f} s")
        began = time.monotonic()
        for number in numbers:
            run = Run(known, on, number, seed)
            told = run.go()
            tell(told.line())
            for fault in told.faults:
                if not fault.endswith(")"):
                    counted[fault.partition(" at ")[0].partition(" after ")[0]] += 1
                    hit += 1
            failed += bool(told.wrong)
            on.drop(run.county)
        minutes = (time.monotonic() - began) / 60
    peak_mb, too_much = invariants.peak_rss()
    tell("\n".join([f"peak memory of a process: {peak_mb:.0f} MB", *too_much]))
    tell(f"faults that took effect: {hit}: " + ", ".join(f"{name} {count}" for name, count in counted.most_common()))
    tell(f"converged {len(numbers) - failed}/{len(numbers)}, {len(numbers) / minutes:.1f} runs a minute, seed {seed}")
    return failed + len(too_much)


def main(given: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Break runs of the pipeline in many ways, and see whether the next run puts it right.")
    parser.add_argument("--runs", type=int, default=300, help="how many (default: 300)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="default: another one each time")
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="repeat these runs of the seed instead")
    arguments = parser.parse_args(given)
    # Whom a killed run leaves is handed to us, not to the machine: so we see whether any are left.
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    return min(soak(arguments.seed, arguments.only or range(arguments.runs), lambda line: print(line, flush=True)), 1)


if __name__ == "__main__":
    sys.exit(main())
