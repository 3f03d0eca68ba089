"""The second pass: every file standardized with the statistics of all of them, on the same workers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.arithmetic.result import State
from normcli.calculate import run
from normcli.datasets import readers
from normcli.datasets.addresses import File
from normcli.datasets.arrays import Array, blocks, steps
from normcli.datasets.engine import Engine
from normcli.datasets.formats import family_of
from normcli.datasets.pooling import Pooled, Progress
from normcli.datasets.spec import Spec, arranged
from normcli.datasets.task import Task
from normcli.errors import InputError
from normcli.files.npy import write_header
from normcli.files.stored import Stored
from normcli.files.write import whole_file
from normcli.floats import Floats
from normcli.planning.plan import plan
from normcli.words import quoted, shown

_FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True, kw_only=True)
class Standard:
    """What is subtracted and divided by, for each channel, in the units of the files."""

    mean: Floats
    var: Floats


def outputs(files: Sequence[File], pattern: str) -> list[str]:
    """The name of each file's output: ``{name}`` is its name without the suffix, ``{i}`` its number.

    >>> outputs([File("a/x.npy"), File("b/y.npy")], "out/{name}.npy")
    ['out/x.npy', 'out/y.npy']
    """
    if not pattern.lower().endswith(".npy"):
        raise InputError(f"--output {quoted(pattern)} must end in .npy: each file becomes an NPY file")
    found: dict[str, File] = {}
    for number, file in enumerate(files):
        if family_of(file.address) == "tar":
            raise InputError(f"{file.name} holds many samples; -o standardizes files of one array", "unpack it first")
        stem = file.address.rstrip("/").rpartition("/")[2]
        stem = stem[: -len(Path(stem).suffix)] if Path(stem).suffix else stem
        path = pattern.replace("{name}", stem).replace("{i}", str(number))
        if path in found:
            more = "put {i}, the number of the file, into the name" if "{i}" not in pattern else ""
            raise InputError(
                f"{found[path].name} and {file.name} would both be written to {shown(path, 200)}", more or None
            )
        if not file.remote and Path(path).exists() and Path(path).samefile(file.address):
            raise InputError(f"{shown(path, 200)} is one of the files that are read; give -o another name")
        found[path] = file
    return list(found)


def standardize(
    pooled: Pooled, spec: Spec, paths: Sequence[str], engine: Engine, *, ddof: int, progress: Progress | None = None
) -> None:
    """Write (x - mean) / std of every file that was read; what cannot be written is an InputError."""
    for folder in {Path(path).parent for path in paths}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {shown(str(folder), 200)}: {error.strerror}") from None
    unscaled = Pooled(part=pooled.part, finite=pooled.finite)
    standard = Standard(mean=unscaled.mean, var=unscaled.variance(ddof))
    bad = {number for number, _ in pooled.part.bad}
    tasks = [
        Task(number, file.name, (file, spec, standard, path))
        for number, (file, path) in enumerate(zip(pooled.files, paths, strict=True))
        if number not in bad
    ]
    sizes = {task.number: pooled.files[task.number].size or 1 for task in tasks}
    done, whole = 0, sum(sizes.values())
    for number, _ in engine.run(standardize_file, tasks):
        done += sizes[number]
        if progress is not None:
            progress(done, whole)


def standardize_file(file: File, spec: Spec, standard: Standard, path: str) -> None:
    """One file, read and written block by block; tables row by row."""
    with whole_file(path) as out:
        rows, shape, dtype, start = 0, None, None, 0
        for array in readers.arrays(file, spec):
            if array.turned:
                array = Array.of(array.read(tuple(slice(0, n) for n in array.shape), None).T, array.name)
            taken = spec.taken(array.shape, array.name)
            mine = tuple(len(range(one.start, one.stop, one.step)) for one in taken)
            native = array.dtype.newbyteorder("=")
            floating = (
                native if native.name in _FLOATS else np.dtype(np.float32 if native.itemsize <= 2 else np.float64)
            )
            if shape is None:
                shape, dtype = mine, floating
                write_header(out, shape, dtype, fortran_order=False)
                start = out.tell()
            if mine[1:] != shape[1:] or floating != dtype:
                raise InputError(f"{file.name} holds arrays of different shapes; name one with ::")
            out.flush()
            place = Stored(out, start + rows * math.prod(shape[1:]) * dtype.itemsize, mine, dtype, name=path)
            kept = spec.kept(len(mine), array.name, image=array.image)
            for region, block in blocks(array, steps(array, kept), taken, 0, 1):
                place[region] = _standardized(block.astype(dtype), region, kept, standard)
            rows += mine[0]
        if shape is not None and rows != shape[0]:
            out.seek(0)
            assert dtype is not None
            write_header(out, (rows, *shape[1:]), dtype, fortran_order=False)
            if out.tell() != start:
                raise InputError(f"{file.name} has too many rows to be written")


def _standardized(block: NDArray[Any], region: Any, kept: tuple[int, ...], standard: Standard) -> NDArray[Any]:
    """A block, normalized in eval mode: the pooled statistics are the running ones."""
    at = tuple(region[axis] for axis in kept)
    mean, var = (np.ascontiguousarray(values[at]).reshape(-1) for values in (standard.mean, standard.var))
    order = (*kept, *(axis for axis in range(block.ndim) if axis not in kept))
    apart = bool(kept) and kept[-1] - kept[0] != len(kept) - 1
    values = np.ascontiguousarray(block.transpose(order)) if apart else block
    view = arranged(values, tuple(range(len(kept))) if apart else kept, by_sample=False)[0]
    options = {"mode": "eval", "eps": 0.0, "affine": False, "running_mean": mean, "running_var": var}
    settled = plan("batch", view.shape, view.dtype.name, options)
    result = run(np.asarray(view), settled, State(running_mean=mean, running_var=var), threads=1)
    found: NDArray[Any] = result.output.reshape(values.shape)
    return found.transpose(np.argsort(order)) if apart else found
