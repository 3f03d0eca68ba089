"""The kinds beyond the family: a row each, over any axes; and one's own formula.

Formulas, and what differs where, with the public files that have them.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Mapping

from normcli.formula import further_lines
from normcli.planning.conventions import Profile
from normcli.planning.kinds import FORMULA, KINDS, Kind
from normcli.planning.layout import Shape, by_channel


def _given(*axes: int) -> Callable[[int, int], Shape]:
    return lambda rank, channel: tuple(axis for axis in axes if -rank <= axis < rank)


def _channel(rank: int, channel: int) -> Shape:
    return (channel,)


def _all_but_channel(rank: int, channel: int) -> Shape:
    return tuple(axis for axis in range(rank) if axis != channel)


def _places(rank: int, channel: int) -> Shape:
    return tuple(axis for axis in range(1, rank) if axis != channel)


def _everything(rank: int, channel: int) -> Shape:
    return tuple(range(rank))


FURTHER: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="lp",
            title="Lp normalization",
            summary="Lp: divided by a norm, such as the length.",
            options=("p", "eps", "eps_at", "axes", "convention", "dtype"),
            text=further_lines.LP,
            layout=by_channel,
            numbers={"p": 2.0, "eps": 1e-12},
            sets={None: _given(1)},
            forms={
                ("p", 1.0): further_lines.LP_1,
                ("p", 2.0): further_lines.LP_2,
                ("p", math.inf): further_lines.LP_LARGEST,
                ("eps_at", "floor"): further_lines.FLOOR,
                ("eps_at", "inside"): further_lines.INSIDE,
                ("eps_at", "inside_floor"): further_lines.INSIDE_FLOOR,
                ("eps_at", "added"): further_lines.ADDED,
            },
            profiles={
                one.name: one
                for one in (
                    Profile("torch", "pytorch torch/nn/functional.py normalize"),
                    Profile(
                        "tensorflow",
                        "tensorflow tensorflow/python/ops/nn_impl.py l2_normalize",
                        changes=further_lines.INSIDE_FLOOR,
                    ),
                    Profile(
                        "keras",
                        "keras keras/src/ops/nn.py normalize",
                        axes=(-1,),
                        changes=further_lines.INSIDE_SQUARED_FLOOR,
                    ),
                    Profile(
                        "flax",
                        "flax flax/linen/normalization.py _l2_normalize",
                        axes=(-1,),
                        changes=further_lines.INSIDE,
                    ),
                )
            },
            examples=(
                "normcli lp '[[1,2,4,1],[6,3,2,4]]'",
                "normcli lp '[[3,4]]' --expect '[[0.6,0.8]]'",
                "normcli lp x.npy --p 1 --axes -1",
                "normcli lp '[[3,4]]' --versus flax",
            ),
        ),
        Kind(
            name="zscore",
            title="z-score",
            summary="z-score: less the mean, divided by the standard deviation.",
            options=("ddof", "axes", "convention", "dtype"),
            text=further_lines.ZSCORE,
            layout=by_channel,
            sets={None: _given(0)},
            forms={("ddof", 1): further_lines.STD_UNBIASED},
            profiles={
                one.name: one
                for one in (
                    Profile("scipy", "scipy scipy/stats/_stats_py.py zscore"),
                    Profile(
                        "sklearn",
                        "scikit-learn sklearn/preprocessing/_data.py StandardScaler",
                        changes=further_lines.STD_NOT_0,
                    ),
                    Profile("pandas", "pandas pandas/core/generic.py std", numbers={"ddof": 1}),
                    Profile(
                        "onnx",
                        "onnx docs/Operators.md MeanVarianceNormalization",
                        axes=(0, 2, 3),
                        changes=further_lines.STD_AND_MORE,
                    ),
                )
            },
            examples=(
                "normcli zscore '[[1,2,4,1],[6,3,2,4],[2,4,6,1]]'",
                "normcli zscore '[[1],[2],[6]]' --expect '[[-0.9258],[-0.4629],[1.3887]]'",
                "normcli zscore x.npy --convention pandas",
                "normcli zscore x.npy --axes 0,1 --trace",
            ),
        ),
        Kind(
            name="minmax",
            title="Min-max scaling",
            summary="Min-max: from the smallest to the largest, as 0 to 1.",
            options=("axes", "convention", "dtype"),
            text=further_lines.MINMAX,
            layout=by_channel,
            sets={None: _given(0)},
            profiles={
                "sklearn": Profile("sklearn", "scikit-learn sklearn/preprocessing/_data.py MinMaxScaler"),
                "plain": Profile("plain", "as it is written by hand", changes=further_lines.SPAN_AS_IT_IS),
            },
            examples=(
                "normcli minmax '[[1,2],[3,8]]'",
                "normcli minmax '[[1,2],[3,8],[2,4]]' --expect '[[0,0],[1,1],[0.5,0.3333]]'",
                "normcli minmax x.npy --axes 1 --trace",
                "normcli minmax x.npy --axes 0,1 --json",
            ),
        ),
        Kind(
            name="softmax",
            title="Softmax",
            summary="Softmax: exponentials that add up to 1.",
            options=("axes", "convention", "dtype"),
            text=further_lines.SOFTMAX,
            layout=by_channel,
            sets={None: _given(-1)},
            profiles={"torch": Profile("torch", "pytorch torch/nn/functional.py softmax")},
            examples=(
                "normcli softmax '[1,2,4,1]'",
                "normcli softmax '[1,2,4]' --expect '[0.0420,0.1142,0.8438]'",
                "normcli softmax x.npy --axes 0 --trace",
                "normcli softmax '[1,2,4,1]' --grad-output '[0,0,1,0]'",
            ),
        ),
        Kind(
            name="logsoftmax",
            title="Log-softmax",
            summary="Log-softmax: the logarithm of softmax.",
            options=("axes", "convention", "dtype"),
            text=further_lines.LOGSOFTMAX,
            layout=by_channel,
            sets={None: _given(-1)},
            profiles={"torch": Profile("torch", "pytorch torch/nn/functional.py log_softmax")},
            examples=(
                "normcli logsoftmax '[1,2,4,1]'",
                "normcli logsoftmax '[1,2,4]' --expect '[-3.1698,-2.1698,-0.1698]'",
                "normcli logsoftmax x.npy --trace",
                "normcli logsoftmax '[1,2,4,1]' --versus torch",
            ),
        ),
        Kind(
            name="pixel",
            title="PixelNorm",
            summary="PixelNorm: each position divided by the root mean square of its channels.",
            options=("eps", "channel_axis", "convention", "dtype"),
            text=further_lines.PIXEL,
            layout=by_channel,
            least_rank=2,
            needs="(N, C) or more",
            numbers={"eps": 1e-8},
            sets={None: _channel},
            profiles={"paper": Profile("paper", "Karras et al. 2018, arXiv:1710.10196, 4.2")},
            examples=(
                "normcli pixel '[[1,2,4,1]]'",
                "normcli pixel '[[1,2]]' --expect '[[0.6325,1.2649]]'",
                "normcli pixel x.npy --channel-axis -1",
                "normcli pixel '[[1,2,4,1]]' --element 0,2",
            ),
        ),
        Kind(
            name="frn",
            title="Filter Response Normalization",
            summary="FRN: each channel's positions by their root mean square, and a threshold.",
            options=("eps", "weight", "bias", "tau", "channel_axis", "convention", "dtype"),
            text=further_lines.FRN,
            layout=by_channel,
            least_rank=3,
            needs="(N, C, L) or more",
            numbers={"eps": 1e-6},
            sets={None: _places, "channels": _channel},
            tensors={"weight": ("channels", 1.0), "bias": ("channels", 0.0), "tau": ("channels", 0.0)},
            profiles={
                "paper": Profile("paper", "Singh and Krishnan 2020, arXiv:1911.09737"),
                "timm": Profile(
                    "timm", "pytorch-image-models timm/layers/filter_response_norm.py", numbers={"eps": 1e-5}
                ),
            },
            examples=(
                "normcli frn '[[[1,2,3],[4,6,8]]]'",
                "normcli frn '[[[1,2],[3,4]]]' --expect '[[[0.6325,1.2649],[0.8485,1.1314]]]'",
                "normcli frn x.npy --convention timm --trace",
                "normcli frn x.npy --channel-axis -1 --tau w.npy",
            ),
        ),
        Kind(
            name="grn",
            title="Global Response Normalization",
            summary="GRN: each channel by its length beside those of the others.",
            options=("eps", "weight", "bias", "channel_axis", "convention", "dtype"),
            text=further_lines.GRN,
            layout=by_channel,
            least_rank=3,
            needs="(N, C, L) or more",
            numbers={"eps": 1e-6},
            sets={None: _places, "channels": _channel},
            tensors={"weight": ("channels", 0.0), "bias": ("channels", 0.0)},
            profiles={
                "timm": Profile("timm", "pytorch-image-models timm/layers/grn.py"),
                "convnext": Profile("convnext", "facebookresearch/ConvNeXt-V2 models/utils.py GRN", channel_axis=-1),
            },
            examples=(
                "normcli grn '[[[1,2],[3,4]]]' --weight '[1,1]'",
                "normcli grn '[[[1,2],[3,4]]]' --weight '[1,1]' --expect '[[[1.6180,3.2361],[7.1459,9.5279]]]'",
                "normcli grn x.npy --channel-axis -1 --weight w.npy --bias w.npy",
                "normcli grn '[[[1,2],[3,4]]]' --weight '[1,1]' --element 0,1,1",
            ),
        ),
        Kind(
            name="lrn",
            title="Local Response Normalization",
            summary="LRN: each channel by its neighbours.",
            options=("size", "alpha", "beta", "k", "channel_axis", "convention", "dtype"),
            text=further_lines.LRN,
            layout=by_channel,
            least_rank=2,
            needs="(N, C) or more",
            numbers={"size": 5.0, "alpha": 1e-4, "beta": 0.75, "k": 1.0},
            sets={None: _channel, "channels": _channel},
            profiles={
                one.name: one
                for one in (
                    Profile("torch", "pytorch torch/nn/functional.py local_response_norm"),
                    Profile("onnx", "onnx docs/Operators.md LRN"),
                    Profile(
                        "tensorflow",
                        "tensorflow tensorflow/core/kernels/lrn_op.cc",
                        numbers={"size": 11.0, "alpha": 1.0, "beta": 0.5},
                        channel_axis=-1,
                        changes=further_lines.ALPHA_WHOLE,
                    ),
                    Profile("caffe", "caffe src/caffe/layers/lrn_layer.cpp", numbers={"alpha": 1.0}),
                )
            },
            examples=(
                "normcli lrn '[[1,2,4,1]]' --size 3 --alpha 1",
                "normcli lrn '[[1,2,4]]' --alpha 1 --expect '[[0.2904,0.5808,1.1616]]'",
                "normcli lrn x.npy --convention tensorflow",
                "normcli lrn '[[1,2,4,1]]' --size 2 --alpha 1 --versus onnx",
            ),
        ),
        Kind(
            name="weight",
            title="Weight normalization",
            summary="Weight normalization: each row of a weight by its length.",
            options=("weight", "channel_axis", "convention", "dtype"),
            text=further_lines.WEIGHT,
            layout=by_channel,
            sets={None: _all_but_channel, "channels": _channel},
            tensors={"weight": ("channels", 1.0)},
            profiles={
                "torch": Profile("torch", "pytorch torch/nn/utils/parametrizations.py weight_norm", channel_axis=0)
            },
            examples=(
                "normcli weight '[[3,4],[5,12]]'",
                "normcli weight '[[3,4],[6,8]]' --expect '[[0.6,0.8],[0.6,0.8]]'",
                "normcli weight '[[3,4],[5,12]]' --weight '[10,26]' --trace",
                "normcli weight x.npy --channel-axis -1 --weight w.npy",
            ),
        ),
        Kind(
            name="weight-std",
            title="Weight standardization",
            summary="Weight standardization: each filter to mean 0 and variance 1.",
            options=("eps", "channel_axis", "convention", "dtype"),
            text=further_lines.WEIGHT_STD,
            layout=by_channel,
            least_rank=2,
            needs="(C, K) or more",
            numbers={"eps": 1e-5},
            sets={None: _all_but_channel},
            profiles={
                "paper": Profile("paper", "joe-siyuan-qiao/WeightStandardization README.md", channel_axis=0),
                "timm": Profile(
                    "timm",
                    "pytorch-image-models timm/layers/std_conv.py StdConv2d",
                    numbers={"eps": 1e-6},
                    channel_axis=0,
                    changes=further_lines.STD_BIASED_INSIDE,
                ),
            },
            examples=(
                "normcli weight-std '[[1,2,4],[3,3,9]]'",
                "normcli weight-std '[[1,2,6]]' --expect '[[-0.7559,-0.3780,1.1339]]'",
                "normcli weight-std x.npy --convention timm",
                "normcli weight-std '[[1,2,4],[3,3,9]]' --element 0,2",
            ),
        ),
        Kind(
            name="spectral",
            title="Spectral normalization",
            summary="Spectral normalization: a matrix by its largest singular value.",
            options=("iterations", "eps", "u", "convention", "dtype"),
            text=further_lines.SPECTRAL,
            rounds=further_lines.POWER_STEP,
            layout=by_channel,
            least_rank=2,
            needs="(R, C) or more",
            numbers={"iterations": 1.0, "eps": 1e-12},
            sets={None: _everything, "rows": _given(0), "columns": lambda rank, channel: tuple(range(1, rank))},
            tensors={"u": ("rows", math.nan)},
            profiles={
                "torch": Profile("torch", "pytorch torch/nn/utils/spectral_norm.py"),
                "keras": Profile("keras", "keras keras/src/layers/normalization/spectral_normalization.py"),
            },
            examples=(
                "normcli spectral '[[1,2],[3,4]]' --iterations 3 --trace",
                "normcli spectral '[[1,0],[0,2]]' --expect '[[0.5423,0],[0,1.0847]]'",
                "normcli spectral '[[1,2],[3,4]]' --u '[1,0]'",
                "normcli spectral x.npy --iterations 20 --only statistics",
            ),
        ),
    )
}
EVERY: Mapping[str, Kind] = ChainMap({FORMULA.name: FORMULA}, FURTHER, KINDS)  # the last comes first
