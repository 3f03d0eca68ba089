"""Where work is done: in this process, in some processes of this machine, or on a Dask cluster.

An engine is given a function and tasks, each with a number and a name, and gives what comes of them in any order. A
worker that dies is replaced and its tasks are done anew; what a task raises ends the run.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

from normcli.datasets import cluster
from normcli.datasets.task import Task
from normcli.errors import UnavailableError

_DEATHS = 3  # of a worker with the same task, after which it is not tried again
_AHEAD = 2  # tasks for each worker that are handed out


class Engine(NamedTuple):
    """Where to work: ``workers`` processes (1: this one), or the cluster at ``dask``, if one is named."""

    workers: int = 1
    dask: str | None = None
    timeout: float = 30.0

    def run(self, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """The numbers of the tasks with what the function gives of each, as it comes.

        Raises what a task raises, and UnavailableError where workers cannot be had or keep dying.

        >>> list(Engine().run(abs, [Task(0, "x", (-1,))]))
        [(0, 1)]
        """
        if self.dask is not None:
            return cluster.run(self.dask, self.timeout, function, tasks)
        if self.workers > 1 and len(tasks) > 1:
            return _processes(min(self.workers, len(tasks)), function, tasks)
        return ((task.number, function(*task.arguments)) for task in tasks)


def _processes(workers: int, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
    waiting, deaths = list(reversed(tasks)), dict.fromkeys((task.number for task in tasks), 0)
    while waiting:
        running: dict[Future[Any], Task] = {}
        pool = _pool(workers)
        try:
            while waiting or running:
                while waiting and len(running) < workers * _AHEAD:
                    running[pool.submit(function, *waiting[-1].arguments)] = waiting[-1]
                    waiting.pop()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    found = future.result()
                    yield running.pop(future).number, found
        except BrokenProcessPool:
            lost = sorted(running.values(), key=lambda task: task.number)
            for task in lost:
                deaths[task.number] += 1
            waiting += reversed(lost)
            worst = max(lost, key=lambda task: deaths[task.number], default=None)
            if worst is None or deaths[worst.number] >= _DEATHS:
                about = f" while {worst.name} was worked on" if worst else ""
                raise UnavailableError(
                    f"a worker died {_DEATHS} times{about}", hint="memory may be short: try fewer --workers"
                ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_ignore_interrupts)


def _ignore_interrupts() -> None:
    """Ctrl-C goes to all processes of a terminal; this one leaves it to the one that it works for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
