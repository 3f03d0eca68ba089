"""Images, in files or in tar shards: each is one sample, of shape (height, width, channels)."""

from __future__ import annotations

import fnmatch
import io
import tarfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normcli.datasets.addresses import File, reached
from normcli.datasets.arrays import Array, held, opened
from normcli.datasets.formats import family_of
from normcli.datasets.libraries import library
from normcli.datasets.plain import of_npy
from normcli.datasets.spec import Spec
from normcli.errors import InputError
from normcli.files.checkpoint import damage_of
from normcli.files.npy import MAGIC
from normcli.words import listed, shown

_LARGEST = 2**28  # bytes of one packed sample
_AS_STORED = {"P": "RGB", "PA": "RGBA", "1": "L"}  # the numbers of a palette or of bits are no brightness


def arrays(file: File, spec: Spec) -> Iterator[Array]:
    """The image of a file, or the samples of a tar shard: images, or the members that a name or pattern means."""
    if family_of(file.address) == "tar":
        yield from _tar(file, spec)
    elif file.member is not None:
        raise InputError(f"{file.name}: an image has no members")
    else:
        yield _image(held(file, _LARGEST), file.name, spec)


def _image(stream: io.BytesIO, name: str, spec: Spec) -> Array:
    pillow = library("PIL.Image", name, extra="images")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            with pillow.open(stream, formats=("PNG", "JPEG")) as image:
                mode = spec.convert or _AS_STORED.get(image.mode)
                values: NDArray[Any] = np.asarray(image.convert(mode) if mode and mode != image.mode else image)
    except (pillow.DecompressionBombWarning, pillow.DecompressionBombError) as error:
        raise InputError(f"{name} is too large to be unpacked: {shown(str(error), 120)}") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen types on damaged images
        raise InputError(f"{name} is no PNG or JPEG image, or is damaged: {shown(str(error), 120)}") from None
    if values.dtype.kind == "b":
        values = values.astype(np.uint8) * np.uint8(255)
    return Array.of(values if values.ndim == 3 else values[..., None], name, image=True, sample=True)


def _tar(file: File, spec: Spec) -> Iterator[Array]:
    outer = shown(file.address, 200)
    found, others = 0, set()
    with ExitStack() as stack:
        stack.enter_context(reached(file.address))
        stack.enter_context(damage_of(outer))
        stream = stack.enter_context(opened(file))
        archive = stack.enter_context(tarfile.open(fileobj=stream, mode="r|*"))
        for entry in archive:
            archive.members = []  # type: ignore[attr-defined]  # it would keep them all
            if not entry.isfile() or not _is_meant(entry.name, file.member):
                others.add(entry.name.rpartition("/")[2].partition(".")[2] or entry.name)
                continue
            name = f"{outer}::{shown(entry.name)}"
            if entry.size > _LARGEST:
                raise InputError(f"{name} holds {entry.size / 2**20:.0f} MiB, which is too much for one sample")
            member = archive.extractfile(entry)
            assert member is not None
            found += 1
            yield _sample(io.BytesIO(member.read()), name, entry.size, spec)
    if not found:
        meant = "no image" if file.member is None else f"no {shown(file.member)}"
        raise InputError(f"{outer} holds {meant}; its members end in {listed(sorted(others), 10)}")


def _is_meant(name: str, member: str | None) -> bool:
    """Whether a member of a tar is meant: any image, or those of a name, an ending or a pattern.

    >>> _is_meant("a/0001.img.npy", "img.npy"), _is_meant("a/0001.json", None), _is_meant("0001.JPG", None)
    (True, False, True)
    """
    last = name.rpartition("/")[2]
    if last.startswith("."):
        return False
    if member is None:
        return family_of(name) == "image"
    return name == member or last.endswith(f".{member}") or fnmatch.fnmatchcase(name, member)


def _sample(stream: io.BytesIO, name: str, size: int, spec: Spec) -> Array:
    if stream.getvalue().startswith(MAGIC):
        array = of_npy(stream, name, size)
        array.sample = True
        return array
    return _image(stream, name, spec)
