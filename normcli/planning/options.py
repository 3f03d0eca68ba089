"""What may be asked for from Python, as types: a checker refuses a kind or an option of another name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypedDict

KindName = Literal[
    "batch", "instance", "layer", "group", "rms", "lp", "zscore", "minmax", "softmax", "logsoftmax", "pixel", "frn",
    "grn", "lrn", "weight", "weight-std", "spectral", "formula",
]  # fmt: skip
ConventionName = Literal[
    "torch", "keras", "flax", "onnx", "mlx", "d2l", "cs231n",
    "tensorflow", "scipy", "sklearn", "pandas", "plain", "paper", "timm", "convnext", "caffe",
]  # fmt: skip
DtypeName = Literal["float16", "bfloat16", "float32", "float64"]


class Shaping(TypedDict, total=False):
    """The options that say which elements share one mean."""

    groups: int
    channel_axis: int
    normalized_shape: int | Sequence[int]
    convention: ConventionName


class Options(Shaping, total=False):
    """The options of a calculation: those of the command line, with underscores.

    Arrays are whatever ``numpy.asarray`` takes, or torch tensors. ``gamma`` and ``beta`` are other words
    for weight and bias; ``state`` and ``prefix`` name a file that holds a layer's numbers, and the layer in it.

    >>> sorted(Options.__annotations__)[:3]
    ['affine', 'alpha', 'axes']
    """

    eps: float
    weight: Any
    bias: Any
    gamma: Any
    beta: Any
    affine: bool
    mode: Literal["train", "eval"]
    momentum: float | None
    decay: float
    track_running_stats: bool
    running_mean: Any
    running_var: Any
    num_batches_tracked: int
    ddof: Literal[0, 1]
    running_ddof: Literal[0, 1]
    weight_offset: Literal[0, 1]
    cast: Literal["before", "after"]
    virtual_batch: int
    ranks: bool | Sequence[int]
    renorm: bool
    rmax: float
    dmax: float
    axes: Any
    p: float
    eps_at: str
    size: int
    alpha: float
    k: float
    iterations: int
    u: Any
    tau: Any
    lines: str
    let: Mapping[str, Any]
    dtype: DtypeName | Any  # also a NumPy dtype
    state: str | PathLike[str]
    prefix: str
