"""luigid as a client sees it: is it there, and does it forgive.

luigid counts a kill as a failure and shuts a task out after a few of them. A run that holds the lock knows that nobody else is
at work on its tasks, and has them forgiven before it starts. luigid also believes for a while that a killed luigi is still at
work; on this machine the dead can be told from the living, and their tasks are offered again at once. This speaks luigid's HTTP
interface; luigi is not imported.
"""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import requests

from pipeline import processes
from pipeline.errors import SchedulerUnavailable

TIMEOUT_S = 10.0
#: How luigi names its workers: ``Worker(salt=8368207747, workers=2, host=vm, username=root, pid=10050)``.
WORKER = re.compile(r"host=(?P<host>[^,)]*),.*\bpid=(?P<pid>\d+)")


def require_scheduler(url: str) -> None:
    """Make sure that luigid answers.

    Raises:
        SchedulerUnavailable: it does not.
    """
    try:
        requests.head(url, timeout=TIMEOUT_S).raise_for_status()
    except requests.RequestException as error:
        raise SchedulerUnavailable(
            f"no luigid at {url} ({type(error).__name__})",
            "a running luigid",
            "hcad-pipeline up or scripts/luigid.sh starts one; or pass --local-scheduler",
        ) from error


def forgive(url: str, sources: list[str]) -> int:
    """Have luigid forget the failures of the tasks of these sources, and offer shut out ones again; returns how many.

    Raises:
        SchedulerUnavailable: luigid broke off.
    """
    forgiven = 0
    for status in ("FAILED", "DISABLED"):
        tasks: dict[str, Any] = _call(url, "task_list", status=status, upstream_status="", limit=False) or {}
        for task_id, task in tasks.items():
            parameters = task.get("params", {})
            if parameters.get("source") not in sources and task.get("name") != "SyncAll":
                continue
            _call(url, "re_enable_task" if status == "DISABLED" else "forgive_failures", task_id=task_id)
            forgiven += 1
    return forgiven


def free_tasks_of_the_dead(url: str) -> int:
    """Have luigid offer again what a luigi of this machine was running when it was killed; returns how many tasks.

    Raises:
        SchedulerUnavailable: luigid broke off.
    """
    freed = 0
    tasks: dict[str, Any] = _call(url, "task_list", status="RUNNING", upstream_status="", limit=False) or {}
    for task_id, task in tasks.items():
        worker = task.get("worker_running") or ""
        if not _is_dead(worker):
            continue
        # luigid takes the end of a task from its own worker only. That it failed is forgiven: it was killed.
        _call(url, "add_task", worker=worker, task_id=task_id, status="FAILED", runnable=False, resources=task.get("resources"))
        _call(url, "re_enable_task", task_id=task_id)
        _call(url, "forgive_failures", task_id=task_id)
        freed += 1
    return freed


def _is_dead(worker: str) -> bool:
    found = WORKER.search(worker)
    return found is not None and found["host"] == socket.gethostname() and processes.started_at(int(found["pid"])) is None


def _call(url: str, method: str, **arguments: Any) -> Any:
    try:
        answer = requests.post(f"{url.rstrip('/')}/api/{method}", data={"data": json.dumps(arguments)}, timeout=TIMEOUT_S)
        answer.raise_for_status()
        return answer.json()["response"]
    except (requests.RequestException, ValueError, KeyError) as error:
        raise SchedulerUnavailable(f"luigid at {url}: {error}", f"an answer to {method}", "see luigid's log") from error
