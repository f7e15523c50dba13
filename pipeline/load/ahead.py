"""One item ahead: a second thread makes the next item while the first one uses this one.

Items are made one after the other, in their order, so that memory holds two and no more; what one raises is raised where its item
would have been taken. PostgreSQL reads while the next batch is formatted, and Parquet is unpacked meanwhile.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def one_ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Generator[Made, None, None]:
    """``map(make, items)``, with ``make`` in a thread of its own; the items are taken in the caller's thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming: Future[Made] | None = None
        for item in items:
            following = thread.submit(make, item)
            if coming is not None:
                yield coming.result()
            coming = following
        if coming is not None:
            yield coming.result()


def read_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items, each taken in a thread of its own while the one before it is used; None is not among them."""
    iterator = iter(items)
    coming: Iterator[Item | None] = one_ahead(lambda _: next(iterator, None), itertools.repeat(None))
    while (item := next(coming)) is not None:
        yield item
