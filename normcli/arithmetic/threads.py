"""The same done for many regions at the same time; NumPy and the compiled loops let go of the interpreter's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

S = TypeVar("S")
T = TypeVar("T")

_BUFFER = 2**10  # elements: NumPy gathers shorter rows in buffers of 8192, which takes longer than to work on them


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel(function: Callable[[S], T], items: Sequence[S], threads: int) -> list[T]:
    """The function of every item, worked out by some threads, in order; the first failure is raised.

    >>> parallel(abs, [-1, 2, -3], threads=2)
    [1, 2, 3]
    """

    def quietly(item: S) -> T:
        with np.errstate(all="ignore"):  # a setting of each thread, and what is set inside ends with it
            np.setbufsize(_BUFFER)
            return function(item)

    if threads == 1 or len(items) == 1:
        return [quietly(item) for item in items]
    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        try:
            return list(pool.map(quietly, items))
        except BaseException:  # Ctrl-C too: what the threads read from and write to must outlast them
            pool.shutdown(cancel_futures=True)
            raise
