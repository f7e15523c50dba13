"""What a killed luigi left behind in luigid: tasks that it seems to be running still.

luigid drops a silent worker after a while, and until then keeps its tasks from the next run. Worse, a task whose target came into
being just before the kill would never count as done in that run, because luigid takes a task's end from its own worker only. So the
first thing that a luigi does, before it registers a task, is to have luigid let go of tasks whose luigi on this machine is dead.
"""

from __future__ import annotations

from functools import lru_cache

import luigi
from luigi.interface import core

from pipeline import scheduler
from pipeline.observe.events import log_event


def register() -> None:
    """Listen to the event that comes before a task with dependencies is registered."""
    luigi.Task.event_handler(luigi.Event.DEPENDENCY_DISCOVERED)(before_registering)


def before_registering(_task: luigi.Task, _dependency: luigi.Task) -> None:
    """Free the tasks of dead processes, once a luigi process; when that fails, luigid does it by itself some seconds later."""
    _free_once()


@lru_cache(maxsize=1)
def _free_once() -> None:
    found = core()
    if not found.local_scheduler and found.scheduler_url:
        log_event("scheduler.freed", {"tasks": scheduler.free_tasks_of_the_dead(found.scheduler_url)})
