"""Arrays in stores: Zarr (2 and 3), HDF5 and NetCDF-4, read chunk by chunk, packed values unpacked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.datasets.addresses import File, reached
from normcli.datasets.archives import matched
from normcli.datasets.arrays import Array, opened
from normcli.datasets.formats import family_of, is_store
from normcli.datasets.libraries import library
from normcli.datasets.spec import Spec
from normcli.errors import InputError
from normcli.files.checkpoint import damage_of
from normcli.files.stored import Region
from normcli.words import shown

_MOST_ARRAYS = 10_000


def arrays(file: File, spec: Spec) -> Iterator[Array]:
    """The array that the member names, those that a pattern matches, or the only one that is no coordinate."""
    yield from (_zarr if family_of(file.address) == "Zarr" or is_store(file.address) else _hdf5)(file)


def size(file: File) -> int:
    """The bytes of what is meant of a Zarr store, as its metadata say."""
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in _zarr(file))


def _zarr(file: File) -> Iterator[Array]:
    zarr = library("zarr", file.name, extra="zarr")
    with reached(file.address), damage_of(shown(file.address, 200)):
        node = zarr.open(file.address, mode="r")
        if not hasattr(node, "members"):
            if file.member is not None:
                raise InputError(f"{file.name}: the store is one array, which has no members")
            yield _array(node, file.name, node.chunks, _fill_of(node))
            return
        found = {name: one for name, one in _walked(node, "") if hasattr(one, "chunks")}
        for name in _meant(found, {name: _dimensions(one) for name, one in found.items()}, file):
            yield _array(
                found[name], f"{shown(file.address, 200)}::{shown(name)}", found[name].chunks, _fill_of(found[name])
            )


def _walked(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, one in sorted(group.members()):
        if hasattr(one, "members"):
            yield from _walked(one, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", one


def _dimensions(node: Any) -> tuple[str, ...]:
    names = getattr(node.metadata, "dimension_names", None) or node.attrs.get("_ARRAY_DIMENSIONS") or ()
    return tuple(map(str, names))


def _fill_of(node: Any) -> Any:
    """The fill value of a Zarr 2 array, by which xarray marks what is missing, where it says that values are packed."""
    return node.fill_value if node.metadata.zarr_format == 2 and "scale_factor" in node.attrs else None


def _hdf5(file: File) -> Iterator[Array]:
    h5py = library("h5py", file.name, extra="hdf5")
    with ExitStack() as stack:
        stack.enter_context(reached(file.address))
        stack.enter_context(damage_of(shown(file.address, 200)))
        stream = stack.enter_context(opened(file))
        held = stack.enter_context(h5py.File(stream if file.remote else file.address, "r"))
        found: dict[str, Any] = {}

        def visit(name: str, one: Any) -> None:
            if isinstance(one, h5py.Dataset) and len(found) < _MOST_ARRAYS:
                found[name] = one

        held.visititems(visit)
        scales = {name: (name.rpartition("/")[2],) if one.is_scale else () for name, one in found.items()}
        for name in _meant(found, scales, file):
            yield _array(found[name], f"{shown(file.address, 200)}::{shown(name)}", found[name].chunks, None)


def _meant(found: Mapping[str, Any], dimensions: Mapping[str, tuple[str, ...]], file: File) -> list[str]:
    """The arrays that are meant; coordinates (of one axis, called as it is) only where they are named."""
    names = list(found)
    if file.member is None:
        names = [
            n
            for n in names
            if dimensions[n] != (n.rpartition("/")[2],) and found[n].dtype.kind in "fiu" and found[n].ndim
        ]
    return [names[index] for index in matched(names, file._replace(member=file.member and file.member.strip("/")))]


def _array(node: Any, name: str, chunks: Any, fill: Any) -> Array:
    if node.dtype.kind not in "fiu" or (node.dtype.kind == "f" and node.dtype.itemsize > 8):
        raise InputError(f"{name} holds {node.dtype} values; only real numbers have statistics")
    if 0 in node.shape:
        raise InputError(f"{name} has no elements (shape {tuple(node.shape)})")
    attributes = dict(node.attrs)
    packed = {key: _number(attributes[key]) for key in ("scale_factor", "add_offset") if key in attributes}
    missing = [_number(attributes[key]) for key in ("_FillValue", "missing_value") if key in attributes]
    missing += [] if fill is None else [fill]
    shape = tuple(int(size) for size in node.shape)

    def read(region: Region, into: NDArray[Any] | None) -> NDArray[Any]:
        with damage_of(name):
            return unpacked(np.asarray(node[region]), packed, missing)

    dtype = np.dtype(np.float64) if packed or missing else np.dtype(node.dtype)
    if not shape:
        return Array.of(unpacked(np.asarray(node[()]), packed, missing).reshape(1), name)
    return Array(name=name, shape=shape, dtype=dtype, read=read, chunks=None if chunks is None else tuple(chunks))


def unpacked(values: NDArray[Any], packed: Mapping[str, float], missing: list[Any]) -> NDArray[Any]:
    """Values as the CF conventions pack them: raw * scale_factor + add_offset in float64, NaN where they are missing.

    >>> unpacked(np.array([0, 2, -9], np.int16), {"scale_factor": 0.5, "add_offset": 10.0}, [-9.0]).tolist()
    [10.0, 11.0, nan]
    """
    if not packed and not missing:
        return values
    gone = np.zeros(values.shape, bool)
    for mark in missing:
        gone |= values == np.asarray(mark).astype(values.dtype)
    found = values.astype(np.float64)
    if packed:
        found = found * packed.get("scale_factor", 1.0) + packed.get("add_offset", 0.0)
    found[gone] = np.nan
    return found


def _number(value: Any) -> Any:
    found = np.asarray(value).reshape(-1)
    if len(found) != 1 or found.dtype.kind not in "fiu":
        raise InputError(f"an attribute that says how values are packed is {shown(str(value))}, which is no number")
    return found[0]
