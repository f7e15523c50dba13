"""Whole transactions, run again when PostgreSQL has rolled them back for no fault of theirs.

A deadlock, a serialization failure, and a link that broke before COMMIT was sent all have one thing in common: nothing happened.
A function that does nothing but such transactions, and whose arguments can be read twice, may be run again. What breaks between
COMMIT and its answer is not repeated here: whether it happened is asked first, by a task's target or by the next run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from psycopg2 import errors
from tenacity import RetryCallState, retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from pipeline.errors import DatabaseUnavailable

P = ParamSpec("P")
T = TypeVar("T")
ATTEMPTS = 4
LONGEST_WAIT_S = 2.0


def may_be_repeated(error: BaseException) -> bool:
    """Whether this error says that its transaction was rolled back, and that another attempt may fare better.

    A key that somebody else wrote at the same moment is one of those: the next attempt sees it. (One that comes again is a defect,
    and shows as such.)
    """
    return isinstance(error, errors.UniqueViolation) or (isinstance(error, DatabaseUnavailable) and error.may_be_repeated)


def repeated(function: Callable[P, T]) -> Callable[P, T]:
    """Run a function again, up to three times, after short waits of random length, when its transaction was rolled back like that."""
    return retry(
        retry=retry_if_exception(may_be_repeated),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(0.1, LONGEST_WAIT_S),
        before_sleep=_count,
        reraise=True,
    )(function)


def _count(state: RetryCallState) -> None:
    """Say in the error itself how often it was tried, for the sentence that a person reads."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, DatabaseUnavailable):
        error.add_note(f"attempt {state.attempt_number} of {ATTEMPTS}")
