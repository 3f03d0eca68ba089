"""The engine of a running Dask cluster, which places work, tries again and recovers; the arithmetic is ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from normcli import __version__
from normcli.datasets.libraries import library
from normcli.errors import InputError, NormcliError, UnavailableError
from normcli.words import listed, shown

if TYPE_CHECKING:
    from normcli.datasets.task import Task

_RETRIES = 3
_SCHEMES = ("tcp://", "tls://", "ws://", "wss://", "ucx://")


class Call:
    """A function with its arguments, none of which Dask is to look into: it takes strings for the keys of tasks."""

    __slots__ = ("arguments", "function")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return Call, (self.function, self.arguments)

    def __call__(self) -> tuple[bool, Any]:
        """Whether it can be done, and what comes of it; what is wrong with a file is no reason to try again."""
        try:
            return True, self.function(*self.arguments)
        except NormcliError as error:
            return False, error


def called(call: Call) -> tuple[bool, Any]:
    """What the call gives; the function that workers run."""
    return call()


def run(address: str, timeout: float, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
    """The tasks' results as they come from the workers of a cluster; see ``normcli.datasets.engine``."""
    if not 0 < timeout < float("inf"):
        raise InputError(f"--timeout is {timeout:g}; it must be a positive number of seconds, such as 30")
    distributed = library("distributed", f"--dask {shown(address)}", extra="dask")
    with _client(distributed, address, timeout) as client:
        run_name = uuid4().hex
        by_key = {f"normcli-{run_name}-{task.number}": task for task in tasks}
        calls = [Call(function, task.arguments) for task in tasks]
        # A result stays referenced until it is here: one that nobody holds is forgotten, and one that is held longer is
        # worked out again for nothing where its worker dies.
        futures = {f.key: f for f in client.map(called, calls, key=list(by_key), retries=_RETRIES, pure=False)}
        completed = distributed.as_completed(futures.values(), loop=client.loop, raise_errors=False)
        try:
            for future in completed:
                task = by_key[future.key]
                if future.status in ("error", "cancelled"):
                    raise _failure(distributed, future, task, address)
                if future.status == "finished" and (answer := _fetched(client, future, timeout)) is not None:
                    done, found = answer
                    if not done:
                        raise found
                    del futures[future.key]
                    yield task.number, found
                else:
                    completed.add(future)  # it died with its worker, and is being worked out again
        except (OSError, TimeoutError, distributed.CancelledError):
            raise _lost(address) from None
        finally:
            if client.status == "running":
                with suppress(Exception):
                    client.cancel(list(futures.values()))


def _fetched(client: Any, future: Any, timeout: float) -> tuple[bool, Any] | None:
    """What a call gave; None where it takes its time though the scheduler answers. TimeoutError where that does not."""
    try:
        found: tuple[bool, Any] = future.result(timeout=timeout)
    except TimeoutError:
        client.sync(client.scheduler.ncores, callback_timeout=timeout)
        return None
    except Exception:
        if future.status != "error":
            raise
        return None  # it was lost meanwhile, and could not be worked out again
    return found


@contextmanager
def _client(distributed: Any, address: str, timeout: float) -> Iterator[Any]:
    import logging

    for name in ("distributed.client", "distributed.core", "distributed.comm", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what is wrong is said below, in a line
    import dask

    where: dict[str, Any] = {"address": address}
    if not address.startswith(_SCHEMES):
        if not Path(address).is_file():
            hint = f"an address begins with {listed(_SCHEMES[:2])}"
            raise InputError(f"--dask {shown(address)} is neither an address nor a scheduler file", hint)
        where = {"scheduler_file": address}
    with dask.config.set({"distributed.comm.timeouts.connect": f"{timeout}s", "distributed.comm.retry.count": 0}):
        try:
            client = distributed.Client(**where, timeout=timeout, set_as_default=False)
        except (OSError, TimeoutError, ValueError, TypeError) as error:
            raise UnavailableError(f"no Dask scheduler answers at {shown(address)}: {shown(str(error), 160)}") from None
        try:
            _check(client, address, timeout)
            yield client
        finally:
            with suppress(Exception):
                client.close(timeout=2)


def _check(client: Any, address: str, timeout: float) -> None:
    """Refuse a cluster without workers, and one whose workers have no normcli or another version."""
    try:
        client.wait_for_workers(1, timeout=timeout)
    except TimeoutError:
        raise UnavailableError(
            f"the Dask cluster at {shown(address)} has had no worker for {timeout:g} seconds"
        ) from None
    told = client.get_versions(check=False, packages=["normcli"])
    found = {name: str(worker["packages"].get("normcli")) for name, worker in told["workers"].items()}
    without = {name: version for name, version in found.items() if version != __version__}
    if without:
        name, version = next(iter(without.items()))
        has = "no normcli" if version == "None" else f"normcli {version}"
        raise UnavailableError(
            f"{len(without)} of {len(found)} workers have another normcli: {name} has {has}, here it is {__version__}",
            hint="install the same version where the workers run",
        )


def _failure(distributed: Any, future: Any, task: Task, address: str) -> NormcliError:
    """What to say of a task that could not be done, or whose result is gone."""
    if future.status != "error":
        return _lost(address)
    error = future.exception()
    if isinstance(error, distributed.scheduler.KilledWorker):
        return UnavailableError(
            f"the workers that worked on {task.name} died, one after the other",
            hint="memory may be short there; what is finished is in the file of --resume",
        )
    return UnavailableError(f"{task.name} failed on the cluster: {type(error).__name__}: {shown(str(error), 160)}")


def _lost(address: str) -> UnavailableError:
    return UnavailableError(
        f"the Dask scheduler at {shown(address)} was lost", hint="with --resume FILE, what is finished is kept"
    )
