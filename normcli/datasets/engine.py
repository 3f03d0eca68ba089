"""Where work is done: in this process, in some processes of this machine, or on a Dask cluster.

An engine is given a function and tasks, each with a number and a name, and gives what comes of them in any order. A
worker that dies is replaced and its tasks are done anew; what a task raises ends the run.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from traceback import format_exc
from typing import Any, NamedTuple, cast

from normcli.datasets import cluster
from normcli.datasets.task import Task
from normcli.errors import UnavailableError

_DEATHS = 3  # of a worker with the same task, after which it is not tried again
_SPAWN = get_context("spawn")


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


def _processes(count: int, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
    waiting, found = list(reversed(tasks)), list[tuple[int, Any]]()
    deaths: Counter[Task | None] = Counter()
    workers: dict[Connection, Task | None] = {}  # what each is at, by the way to reach it
    idle: list[Connection] = []
    try:
        while waiting or any(workers.values()):
            while len(workers) < count:
                workers[_started(function)] = None
            while idle and waiting:
                worker, task = idle.pop(), waiting.pop()
                workers[worker] = task
                with suppress(OSError):  # it is dead, which is seen below
                    worker.send(task.arguments)
            yield from found  # while they work on
            found = []
            for worker in cast("list[Connection]", wait(list(workers))):
                at = workers.pop(worker)
                try:
                    done, value = worker.recv()
                except (EOFError, OSError):
                    worker.close()
                    idle = [other for other in idle if other is not worker]
                    _bury(at, deaths, waiting)
                    continue
                if not done:
                    raise value
                if at is not None:
                    found.append((at.number, value))
                workers[worker] = None
                idle.append(worker)
        yield from found
    finally:
        for worker in workers:  # which ends it, once it is done with what it is at
            worker.close()


def _bury(task: Task | None, deaths: Counter[Task | None], waiting: list[Task]) -> None:
    """Have the task of a worker that died done by another; UnavailableError where workers keep dying of it."""
    deaths[task] += 1
    if deaths[task] >= _DEATHS:
        when = "before it began" if task is None else f"while {task.name} was worked on"
        hint = "memory may be short: try fewer --workers"
        if task is None:
            hint += '; a script of your own needs `if __name__ == "__main__":`'
        raise UnavailableError(f"a worker died {_DEATHS} times {when}", hint)
    if task is not None:
        waiting.append(task)


def _started(function: Callable[..., Any]) -> Connection:
    """A process that does one task after another, and says so first; each answer is whether it is done, and what."""
    here, there = _SPAWN.Pipe()
    _SPAWN.Process(target=_work, args=(there, function)).start()
    there.close()
    return here


def _work(boss: Connection, function: Callable[..., Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal; the boss ends this one
    answer: tuple[bool, Any] = True, None
    with suppress(EOFError, OSError):  # nobody is there any more
        while True:
            boss.send(answer)
            arguments = boss.recv()
            try:
                answer = True, function(*arguments)
            except Exception as error:
                error.add_note(format_exc())
                answer = False, error
