"""What each framework computes when it says "batch norm": named, sourced constants.

A convention is another framework's set of defaults. It changes no formula: it fills in the
options that were not given. Sources name the public file in which the numbers stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Convention(NamedTuple):
    """One framework's defaults, for the kinds of normalization that it has.

    ``eps`` lists the kinds the framework has; None stands for the machine epsilon of the
    computing dtype. ``momentum`` is the weight of the NEW batch, whatever the framework calls it;
    ``momentum_sense`` says which weight its own ``momentum`` argument is.
    """

    name: str
    title: str
    eps: Mapping[str, float | None]
    momentum: float
    momentum_sense: str  # "new": weight of the new batch; "old": weight of the old value (decay)
    running_ddof: int
    channel_axis: int
    affine: Mapping[str, bool]  # kinds whose default differs from True
    interleaved_groups: bool
    one_value_per_channel: bool  # computed (True) or refused (False) in training
    source: str
    running_var: float = 1.0  # before the first batch


class Profile(NamedTuple):
    """What one library makes of a kind beyond the family: its numbers, its axes, and what it changes in the lines."""

    name: str
    source: str
    numbers: Mapping[str, float] = {}
    axes: tuple[int, ...] | None = None
    channel_axis: int | None = None
    more_after: bool = False  # whether a window of an even size has one more place after its own, not before
    changes: Mapping[str, str] = {}  # of lines, as ``normcli.formula.rewrite.replaced`` has them


OWN = Profile("own", "")  # of a formula that somebody has written


TORCH = Convention(
    name="torch",
    title="PyTorch",
    eps={"batch": 1e-5, "instance": 1e-5, "layer": 1e-5, "group": 1e-5, "rms": None},
    momentum=0.1,
    momentum_sense="new",
    running_ddof=1,
    channel_axis=1,
    affine={"instance": False},
    interleaved_groups=False,
    one_value_per_channel=False,
    # pytorch: torch/nn/modules/{batchnorm,instancenorm,normalization}.py; torch/nn/functional.py _verify_batch_size
    source="pytorch torch/nn/modules/batchnorm.py, instancenorm.py, normalization.py",
)

KERAS = Convention(
    name="keras",
    title="Keras",
    # No InstanceNorm layer of its own: GroupNormalization(groups=-1), one group for each channel.
    eps={"batch": 1e-3, "instance": 1e-3, "layer": 1e-3, "group": 1e-3, "rms": 1e-6},
    momentum=0.01,
    momentum_sense="old",
    running_ddof=0,
    channel_axis=-1,
    affine={},
    interleaved_groups=False,
    one_value_per_channel=True,
    source="keras keras/src/layers/normalization/{batch,layer,group,rms}_normalization.py",
)

FLAX = Convention(
    name="flax",
    title="Flax",
    eps={"batch": 1e-5, "instance": 1e-6, "layer": 1e-6, "group": 1e-6, "rms": 1e-6},
    momentum=0.01,
    momentum_sense="old",
    running_ddof=0,
    channel_axis=-1,
    affine={},
    interleaved_groups=False,
    one_value_per_channel=True,
    source="flax flax/linen/normalization.py",
)

ONNX = Convention(
    name="onnx",
    title="ONNX",
    eps={"batch": 1e-5, "instance": 1e-5, "layer": 1e-5, "group": 1e-5, "rms": 1e-5},
    momentum=0.1,
    momentum_sense="old",
    running_ddof=0,
    channel_axis=1,
    affine={},
    interleaved_groups=False,
    one_value_per_channel=True,
    # BatchNormalization-15, InstanceNormalization-22, LayerNormalization-17, GroupNormalization-21, RMSNormalization-23
    source="onnx docs/Operators.md",
)

MLX = Convention(
    name="mlx",
    title="MLX",
    eps={"batch": 1e-5, "instance": 1e-5, "layer": 1e-5, "group": 1e-5, "rms": 1e-5},
    momentum=0.1,
    momentum_sense="new",
    running_ddof=1,  # since mlx pull request 3817; the biased variance before
    channel_axis=-1,
    affine={"instance": False},
    interleaved_groups=True,  # channel c belongs to group c mod G, unless pytorch_compatible=True
    one_value_per_channel=False,
    source="mlx python/mlx/nn/layers/normalization.py",
)

D2L = Convention(
    name="d2l",
    title="d2l",
    eps={"batch": 1e-5},
    momentum=0.1,
    momentum_sense="old",
    running_ddof=0,
    channel_axis=1,
    affine={},
    interleaved_groups=False,
    one_value_per_channel=True,
    source="d2l-zh chapter_convolutional-modern/batch-norm.md (from scratch, PyTorch tab)",
)

CS231N = Convention(
    name="cs231n",
    title="cs231n",
    # batchnorm_forward, layernorm_forward and spatial_groupnorm_forward
    eps={"batch": 1e-5, "layer": 1e-5, "group": 1e-5},
    momentum=0.1,  # momentum = 0.9 there
    momentum_sense="old",
    running_ddof=0,  # running_var takes in sample_var, np.var of the batch
    channel_axis=1,
    affine={},
    interleaved_groups=False,
    one_value_per_channel=True,
    source="cs231n assignment2 cs231n/layers.py",
    running_var=0.0,  # bn_param.get("running_var", np.zeros(D))
)

CONVENTIONS: Mapping[str, Convention] = {c.name: c for c in (TORCH, KERAS, FLAX, ONNX, MLX, D2L, CS231N)}

_ALSO = {"pytorch": "torch", "scikit-learn": "sklearn"}


def spelled(name: str) -> str:
    """The name of a convention as it is written here, from the name that a framework gives itself.

    >>> spelled("PyTorch"), spelled("Keras")
    ('torch', 'keras')
    """
    lower = name.strip().lower()
    return _ALSO.get(lower, lower)
