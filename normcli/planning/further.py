"""The kinds beyond the family: a row each, over any axes; and one's own formula.

Formulas, and what differs where, with the public files that have them.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from normcli.errors import InputError
from normcli.formula import others
from normcli.formula.family import used
from normcli.formula.language import Lines, lines
from normcli.formula.rewrite import replaced
from normcli.planning.conventions import OWN, Profile
from normcli.planning.free import FreePlan, Given, axes_in, checked, free_plan, placed
from normcli.planning.kinds import FORMULA, KINDS, Kind
from normcli.planning.layout import Shape, by_channel
from normcli.words import either, quoted, repr_of


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
            text=others.LP,
            layout=by_channel,
            numbers={"p": 2.0, "eps": 1e-12},
            sets={None: _given(1)},
            forms={
                ("p", 1.0): others.LP_1,
                ("p", 2.0): others.LP_2,
                ("p", math.inf): others.LP_LARGEST,
                ("eps_at", "floor"): others.FLOOR,
                ("eps_at", "inside"): others.INSIDE,
                ("eps_at", "inside_floor"): others.INSIDE_FLOOR,
                ("eps_at", "added"): others.ADDED,
            },
            profiles={
                one.name: one
                for one in (
                    Profile("torch", "pytorch torch/nn/functional.py normalize"),
                    Profile(
                        "tensorflow",
                        "tensorflow tensorflow/python/ops/nn_impl.py l2_normalize",
                        changes=others.INSIDE_FLOOR,
                    ),
                    Profile(
                        "keras",
                        "keras keras/src/ops/nn.py normalize",
                        axes=(-1,),
                        changes=others.INSIDE_SQUARED_FLOOR,
                    ),
                    Profile(
                        "flax",
                        "flax flax/linen/normalization.py _l2_normalize",
                        axes=(-1,),
                        changes=others.INSIDE,
                    ),
                )
            },
            examples=(
                "normcli lp '[[1,2,4,1],[6,3,2,4]]'",
                "normcli lp x.npy --p 1 --axes -1",
                "normcli lp '[[3,4]]' --versus flax",
            ),
        ),
        Kind(
            name="zscore",
            title="z-score",
            summary="z-score: less the mean, divided by the standard deviation.",
            options=("ddof", "axes", "convention", "dtype"),
            text=others.ZSCORE,
            layout=by_channel,
            sets={None: _given(0)},
            forms={("ddof", 1): others.STD_UNBIASED},
            profiles={
                one.name: one
                for one in (
                    Profile("scipy", "scipy scipy/stats/_stats_py.py zscore"),
                    Profile(
                        "sklearn",
                        "scikit-learn sklearn/preprocessing/_data.py StandardScaler",
                        changes=others.STD_NOT_0,
                    ),
                    Profile("pandas", "pandas pandas/core/generic.py std", numbers={"ddof": 1}),
                )
            },
            examples=(
                "normcli zscore '[[1,2,4,1],[6,3,2,4],[2,4,6,1]]'",
                "normcli zscore table.csv --ddof 1",
                "normcli zscore x.npy --axes 0,1 --trace",
            ),
        ),
        Kind(
            name="minmax",
            title="Min-max scaling",
            summary="Min-max: from the smallest to the largest, as 0 to 1.",
            options=("axes", "convention", "dtype"),
            text=others.MINMAX,
            layout=by_channel,
            sets={None: _given(0)},
            profiles={
                "sklearn": Profile("sklearn", "scikit-learn sklearn/preprocessing/_data.py MinMaxScaler"),
                "plain": Profile("plain", "as it is written by hand", changes=others.SPAN_AS_IT_IS),
            },
            examples=("normcli minmax '[[1,2],[3,8]]'", "normcli minmax x.npy --axes 1 --trace"),
        ),
        Kind(
            name="softmax",
            title="Softmax",
            summary="Softmax: exponentials that add up to 1.",
            options=("axes", "convention", "dtype"),
            text=others.SOFTMAX,
            layout=by_channel,
            sets={None: _given(-1)},
            profiles={"torch": Profile("torch", "pytorch torch/nn/functional.py softmax")},
            examples=("normcli softmax '[1,2,4,1]'", "normcli softmax x.npy --axes 1 --grad-output ones"),
        ),
        Kind(
            name="logsoftmax",
            title="Log-softmax",
            summary="Log-softmax: the logarithm of softmax.",
            options=("axes", "convention", "dtype"),
            text=others.LOGSOFTMAX,
            layout=by_channel,
            sets={None: _given(-1)},
            profiles={"torch": Profile("torch", "pytorch torch/nn/functional.py log_softmax")},
            examples=("normcli logsoftmax '[1,2,4,1]'", "normcli logsoftmax x.npy --trace"),
        ),
        Kind(
            name="pixel",
            title="PixelNorm",
            summary="PixelNorm: each position divided by the root mean square of its channels.",
            options=("eps", "channel_axis", "convention", "dtype"),
            text=others.PIXEL,
            layout=by_channel,
            least_rank=2,
            needs="(N, C) or more",
            numbers={"eps": 1e-8},
            sets={None: _channel},
            profiles={"paper": Profile("paper", "Karras et al. 2018, arXiv:1710.10196, 4.2")},
            examples=("normcli pixel '[[1,2,4,1]]'", "normcli pixel x.npy --channel-axis -1"),
        ),
        Kind(
            name="frn",
            title="Filter Response Normalization",
            summary="FRN: each channel's positions by their root mean square, and a threshold.",
            options=("eps", "weight", "bias", "tau", "channel_axis", "convention", "dtype"),
            text=others.FRN,
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
            examples=("normcli frn '[[[1,2,3],[4,6,8]]]'", "normcli frn x.npy --tau tau.npy --trace"),
        ),
        Kind(
            name="grn",
            title="Global Response Normalization",
            summary="GRN: each channel by its length beside those of the others.",
            options=("eps", "weight", "bias", "channel_axis", "convention", "dtype"),
            text=others.GRN,
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
                "normcli grn x.npy --channel-axis -1 --weight w.npy --bias b.npy",
            ),
        ),
        Kind(
            name="lrn",
            title="Local Response Normalization",
            summary="LRN: each channel by its neighbours.",
            options=("size", "alpha", "beta", "k", "channel_axis", "convention", "dtype"),
            text=others.LRN,
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
                        changes=others.ALPHA_WHOLE,
                    ),
                    Profile("caffe", "caffe src/caffe/layers/lrn_layer.cpp", numbers={"alpha": 1.0}),
                )
            },
            examples=("normcli lrn '[[1,2,4,1]]' --size 3 --alpha 1", "normcli lrn x.npy --convention tensorflow"),
        ),
        Kind(
            name="weight",
            title="Weight normalization",
            summary="Weight normalization: each row of a weight by its length.",
            options=("weight", "channel_axis", "convention", "dtype"),
            text=others.WEIGHT,
            layout=by_channel,
            sets={None: _all_but_channel, "channels": _channel},
            tensors={"weight": ("channels", 1.0)},
            profiles={
                "torch": Profile("torch", "pytorch torch/nn/utils/parametrizations.py weight_norm", channel_axis=0)
            },
            examples=("normcli weight '[[3,4],[5,12]]'", "normcli weight v.npy --weight g.npy"),
        ),
        Kind(
            name="weight-std",
            title="Weight standardization",
            summary="Weight standardization: each filter to mean 0 and variance 1.",
            options=("eps", "channel_axis", "convention", "dtype"),
            text=others.WEIGHT_STD,
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
                    changes=others.STD_BIASED_INSIDE,
                ),
            },
            examples=("normcli weight-std '[[1,2,4],[3,3,9]]'", "normcli weight-std w.npy --convention timm"),
        ),
        Kind(
            name="spectral",
            title="Spectral normalization",
            summary="Spectral normalization: a matrix by its largest singular value.",
            options=("iterations", "eps", "u", "convention", "dtype"),
            text=others.SPECTRAL,
            rounds=others.POWER_STEP,
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
            examples=("normcli spectral '[[1,2],[3,4]]' --iterations 3 --trace", "normcli spectral w.npy --u u.npy"),
        ),
    )
}
EVERY: Mapping[str, Kind] = ChainMap({FORMULA.name: FORMULA}, FURTHER, KINDS)  # the last comes first
_PLACED_BY_SIZE = {"before", "after"}


def settled(kind: Kind, shape: Shape, dtype: str, given: Mapping[str, Any]) -> FreePlan:
    """The plan of a kind beyond the family, or of one's own formula; InputError for what cannot be computed."""
    settle = settled_formula if kind.name == FORMULA.name else partial(settled_further, kind)
    return settle(shape, dtype, given)


def settled_further(kind: Kind, shape: Shape, dtype: str, given: Mapping[str, Any]) -> FreePlan:
    """The plan of a kind beyond the family.

    >>> settled_further(FURTHER["softmax"], (2, 3), "float64", {}).layout.axes
    (1,)
    """
    name = given.get("convention", next(iter(kind.profiles)))
    if name not in kind.profiles:
        raise InputError(f"the {name} convention has no {kind.title}; it has {either(kind.profiles)} here")
    profile, rank = kind.profiles[name], len(shape)
    wanted = given.get("channel_axis", 1 if profile.channel_axis is None else profile.channel_axis)
    [channel] = axes_in((wanted,), rank, "--channel-axis") if "channel_axis" in kind.options else (0,)
    axes: dict[str | None, Shape] = {}
    for set_, of in kind.sets.items():
        own = of(rank, channel)
        if set_ is None and "axes" in kind.options:
            own = given.get("axes") or profile.axes or own or (-1,)
        axes[set_] = axes_in(own, rank)
    numbers = dict(kind.numbers) | {n: v for n, v in profile.numbers.items() if n in kind.numbers}
    numbers |= {n: float(given[n]) for n in kind.numbers if n in given}
    program = _lines_of(kind, profile, given, numbers)
    tensors = [
        Given(one, tuple(shape[axis] for axis in axes[set_]), axes[set_][0], axes[set_])
        for one, (set_, own) in kind.tensors.items()
        if one in given or own not in (0.0, 1.0) or one not in ("weight", "bias") or kind.name == "grn"
    ]
    program = used(program, frozenset(one.name for one in tensors))
    shown: dict[str, Any] = dict(numbers)
    if "axes" in kind.options:
        shown["axes"] = list(axes[None])
    if "channel_axis" in kind.options:
        shown["channel_axis"] = channel
    shown |= {n: given[n] for n in ("ddof", "eps_at") if n in given}
    if kind.name == "lrn":
        before, after = _window(int(numbers["size"]), profile.name)
        numbers |= {"before": before, "after": after}
    return free_plan(
        kind, profile, shape, dtype,
        checked(program, dict.fromkeys([*numbers, *(t.name for t in tensors)]), rank, axes, tensors),
        axes=axes, numbers=numbers, tensors=tensors, shown=shown,
        channel_axis=channel if "channel_axis" in kind.options else None,
    )  # fmt: skip


def _lines_of(kind: Kind, profile: Profile, given: Mapping[str, Any], numbers: Mapping[str, float]) -> Lines:
    changes = dict(profile.changes)
    options = {**profile.numbers, **numbers, **given}
    for (option, value), form in kind.forms.items():
        if option in options and options[option] == value and not (option == "p" and profile.changes):
            changes |= form
    if kind.name == "lp" and numbers["p"] != 2 and "sum(x^2)" in changes.get("size", ""):
        raise InputError(f"eps inside the root goes with --p 2 only; --p is {numbers['p']:g}")
    program = replaced(lines(kind.text), changes)
    if kind.rounds:
        times = int(numbers["iterations"])
        rounds = "\n".join(kind.rounds.format(i=i, j=i - 1) for i in range(1, times + 1))
        text = kind.text.replace("u_last", f"u_{times}").replace("v_last", f"v_{times}")
        program = lines(f"where u_0 = u\n{rounds}\n{text}")
    return program


def _window(size: int, convention: str) -> tuple[int, int]:
    """How many neighbours before and after a place are near it: of an even size torch has more before, ONNX after.

    >>> _window(2, "torch"), _window(2, "onnx"), _window(3, "torch")
    ((1, 0), (0, 1), (1, 1))
    """
    few, many = (size - 1) // 2, size // 2
    return (few, many) if convention == "onnx" else (many, few)


def settled_formula(shape: Shape, dtype: str, given: Mapping[str, Any]) -> FreePlan:
    """The plan of one's own formula: ``lines``, ``axes`` by name, and ``let`` with the tensors and numbers.

    >>> own = {"lines": "x / (sum(x) + eps)", "axes": {None: (1,)}, "let": {"eps": 1}}
    >>> plan = settled_formula((2, 3), "float64", own)
    >>> plan.statistics, plan.constants
    ((), {'n': 3, 'eps': 1.0})
    """
    rank, text = len(shape), given.get("lines")
    if not isinstance(text, str):
        raise InputError(f"lines is {repr_of(text)}; give a formula such as 'y = x / sum(x)'")
    sets = given.get("axes", {})
    sets = sets if isinstance(sets, Mapping) else {None: sets}
    axes = {name: axes_in(tuple(own), rank) for name, own in sets.items()}
    numbers: dict[str, float] = {}
    tensors: list[Given] = []
    for key, value in given.get("let", {}).items():
        name, _, at = str(key).partition("@")
        own: Shape = tuple(getattr(value, "shape", ()))
        if own == ():
            numbers[name] = float(value)
            continue
        if at and not at.lstrip("-").isdecimal():
            raise InputError(f"--let {quoted(key)}: after @ comes the axis beside which its first one is")
        tensors.append(placed(name, own, shape, int(at) if at else None)._replace(key=str(key)))
    if "size" in numbers:
        numbers |= dict(zip(("before", "after"), map(float, _window(int(numbers["size"]), "torch")), strict=True))
    known = dict.fromkeys([*numbers, *(one.name for one in tensors)])
    program = checked(own_lines(text), known, rank, axes, tensors)
    shown = {"lines": text, "axes": {name or "": list(own) for name, own in axes.items()}} | {
        name: value for name, value in numbers.items() if name not in _PLACED_BY_SIZE
    }
    kind = FORMULA._replace(text=text)
    return free_plan(kind, OWN, shape, dtype, program, axes=axes, numbers=numbers, tensors=tensors, shown=shown)


def own_lines(text: str) -> Lines:
    """The lines of a formula, which may be one expression alone; a kind's own, where that is named.

    >>> [line.name for line in own_lines("x / sum(x)")], own_lines("rms")[0].name
    (['output'], 'mean_square')
    """
    if text.strip() in EVERY:
        return EVERY[text.strip()].program
    alone = "=" not in text and ";" not in text and len(text.strip().splitlines()) == 1
    return lines(f"output = {text.strip()}" if alone else text)
