"""When a failed request is made again, and when no more.

There is one layer of retries, here: exponential backoff with full jitter, a number of attempts and a deadline over all of
them, waits included. A server that names a time to wait is obeyed up to a cap; one that asks for more ends the download at
once, which the error says. The wait is reckoned by the server's own clock where it sends one, and everything else by a
clock that nobody can set, so that a wrong local date neither hurries nor stalls a download.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import math
import time
from dataclasses import dataclass

import tenacity

from pipeline.download.redact import redact
from pipeline.errors import DownloadError
from pipeline.handoff import OnEvent

_NEXT_RUN = "nothing: the next run tries again"


class AskedToWait(DownloadError):
    """The server named the seconds after which it wants to be asked again."""

    wait_s: float = 0.0


class GivenUp(DownloadError):
    """May pass, but not within this download: no further attempt is made."""


class Deadline:
    """The instant at which a download is over, however far it has come.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Seconds left; negative when it has passed."""
        return self._at - time.monotonic()

    def check(self, url: str) -> None:
        """Raise GivenUp when it has passed."""
        if self.left_s <= 0:
            raise GivenUp(f"{redact(url)} is not here after {self._seconds:g} s", "an end before the deadline", _NEXT_RUN)


def retry_after_s(value: str | None, server_date: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for; None when it is absent or makes no sense.

    Args:
        value: the header: whole seconds, or an HTTP date.
        server_date: the Date header of the same answer; a date is counted from it, and from the local clock without it.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        # A number too long for a float is a very long wait all the same.
        return float(text) if len(text) < 16 else math.inf
    until = _http_date(text)
    if until is None:
        return None
    now = _http_date((server_date or "").strip()) or dt.datetime.now(dt.UTC)
    return max(0.0, (until - now).total_seconds())


def _http_date(text: str) -> dt.datetime | None:
    try:
        found = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait between attempts.

    ``backoff_s`` is the first wait's upper end; it doubles with every retry, up to ``max_wait_s``. ``retry_after_cap_s`` is
    the longest wait that a server may ask for.
    """

    backoff_s: float
    max_wait_s: float
    retry_after_cap_s: float

    def attempts(self, url: str, max_retries: int, deadline: Deadline, on_event: OnEvent) -> tenacity.Retrying:
        """Iterate over the attempts; each is a context manager that takes the failures which may pass.

        Args:
            url: named, redacted, in ``download.retry`` (url, attempt, error, wait_s) and in errors.
            max_retries: attempts after the first.
            deadline: no wait begins that would end after it.
            on_event: told of every retry.

        Raises:
            DownloadError: after the last attempt, with what the last one met.
        """
        backoff = tenacity.wait_random_exponential(multiplier=self.backoff_s, max=self.max_wait_s)

        def wait(state: tenacity.RetryCallState) -> float:
            error = _error_of(state)
            return max(float(backoff(state)), error.wait_s if isinstance(error, AskedToWait) else 0.0)

        def is_last(state: tenacity.RetryCallState) -> bool:
            return state.attempt_number > max_retries or state.upcoming_sleep >= deadline.left_s

        def may_pass(error: BaseException) -> bool:
            return isinstance(error, DownloadError) and not isinstance(error, GivenUp)

        def tell(state: tenacity.RetryCallState) -> None:
            figures = {"url": redact(url), "attempt": state.attempt_number, "error": str(_error_of(state))}
            on_event("download.retry", {**figures, "wait_s": round(state.upcoming_sleep, 3)})

        def give_up(state: tenacity.RetryCallState) -> None:
            error = _error_of(state)
            if not isinstance(error, DownloadError):
                raise AssertionError(f"retried what is not retried: {error!r}")
            seen = f"{error.seen}, in the last of {state.attempt_number} attempts"
            if state.attempt_number <= max_retries:
                seen += f" (the next would begin in {state.upcoming_sleep:.0f} s, after the deadline)"
            raise DownloadError(seen, error.expected, error.todo) from None

        return tenacity.Retrying(
            stop=is_last, wait=wait, retry=tenacity.retry_if_exception(may_pass), before_sleep=tell, retry_error_callback=give_up
        )


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
