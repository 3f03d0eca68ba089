"""What is settled before the first element is read: layouts, refusals, resolved options, conventions."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from normcli.calculate import normalize
from normcli.errors import InputError
from normcli.planning.conventions import CONVENTIONS
from normcli.planning.kinds import KINDS
from normcli.planning.plan import Plan, check_state_shape, plan
from normcli.words import either, flag


def planned(kind: str, shape: tuple[int, ...], dtype: str = "float64", **given: Any) -> Plan:
    return plan(kind, shape, dtype, given)


# kind, shape, options; then view, axes, channels, count, stats_shape, reported_axes, channel_axis, weight_shape
LAST = {"channel_axis": -1}
LAYOUTS: dict[str, tuple] = {
    "batch_2d": ("batch", (7, 3), {}, (7, 3), (0,), (1,), 7, (3,), (0,), 1, (3,)),
    "batch_4d": ("batch", (7, 3, 5, 2), {}, (7, 3, 5, 2), (0, 2, 3), (1,), 70, (3,), (0, 2, 3), 1, (3,)),
    "batch_first": ("batch", (7, 3, 5), {"channel_axis": 0}, (7, 3, 5), (1, 2), (0,), 15, (7,), (1, 2), 0, (7,)),
    "batch_last": ("batch", (7, 3, 5), LAST, (7, 3, 5), (0, 1), (2,), 21, (5,), (0, 1), 2, (5,)),
    "instance_2d": ("instance", (3, 5), {}, (3, 5), (1,), (0,), 5, (1, 3), (1,), 0, (3,)),
    "instance_3d": ("instance", (7, 3, 5), {}, (7, 3, 5), (2,), (1,), 5, (7, 3), (2,), 1, (3,)),
    "instance_4d": ("instance", (7, 3, 5, 2), {}, (7, 3, 5, 2), (2, 3), (1,), 10, (7, 3), (2, 3), 1, (3,)),
    "instance_2d_last": ("instance", (5, 3), LAST, (5, 3), (0,), (1,), 5, (1, 3), (0,), 1, (3,)),
    "instance_last": ("instance", (7, 5, 2, 3), LAST, (7, 5, 2, 3), (1, 2), (3,), 10, (7, 3), (1, 2), 3, (3,)),
    "layer_1d": ("layer", (5,), {}, (5,), (0,), (0,), 5, (), (0,), None, (5,)),
    "layer_3d": ("layer", (7, 3, 5), {}, (7, 3, 5), (2,), (2,), 5, (7, 3), (2,), None, (5,)),
    "layer_2_axes": (
        "layer", (7, 3, 5), {"normalized_shape": [3, 5]}, (7, 3, 5), (1, 2), (1, 2), 15, (7,), (1, 2), None, (3, 5)
    ),
    "layer_all": (
        "layer", (3, 5), {"normalized_shape": (3, 5)}, (3, 5), (0, 1), (0, 1), 15, (), (0, 1), None, (3, 5)
    ),
    "layer_number": ("layer", (3, 5), {"normalized_shape": 5}, (3, 5), (1,), (1,), 5, (3,), (1,), None, (5,)),
    "rms_2d": ("rms", (3, 5), {}, (3, 5), (1,), (1,), 5, (3,), (1,), None, (5,)),
    "group_2d": ("group", (7, 6), {"groups": 3}, (7, 3, 2), (2,), (1, 2), 2, (7, 3), (1,), 1, (6,)),
    "group_3d": ("group", (7, 6, 5), {"groups": 2}, (7, 2, 3, 5), (2, 3), (1, 2), 15, (7, 2), (1, 2), 1, (6,)),
    "group_4d": (
        "group", (7, 6, 5, 4), {"groups": 6}, (7, 6, 1, 5, 4), (2, 3, 4), (1, 2), 20, (7, 6), (1, 2, 3), 1, (6,)
    ),
    "group_last": (
        "group", (7, 5, 6), {"groups": 2} | LAST, (7, 5, 2, 3), (1, 3), (2, 3), 15, (7, 2), (1, 2), 2, (6,)
    ),
    "group_interleaved": (
        "group", (7, 5, 6), {"groups": 2, "convention": "mlx"},
        (7, 5, 3, 2), (1, 2), (2, 3), 15, (7, 2), (1, 2), 2, (6,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(LAYOUTS.values()), ids=list(LAYOUTS))
def test_layout(case: tuple) -> None:
    kind, shape, options, *expected = case
    settled = planned(kind, shape, **options)
    layout = settled.layout
    assert [
        layout.view,
        layout.axes,
        layout.channels,
        layout.count,
        layout.stats_shape,
        layout.reported_axes,
        layout.channel_axis,
        settled.weight_shape,
    ] == expected


@pytest.mark.parametrize(
    ("view", "expected"),
    [("stats_view", (7, 3, 1, 1)), ("channels_view", (1, 3, 2, 1))],
    ids=["statistics", "channels"],
)
def test_other_dimensions_shrink_to_1(view: str, expected: tuple[int, ...]) -> None:
    assert getattr(planned("group", (7, 6, 5), groups=3).layout, view) == expected


# kind, shape, options, message
REFUSALS: dict[str, tuple[str, tuple[int, ...], dict[str, Any], str]] = {
    "kind": ("bach", (3, 4), {}, "kind 'bach' is not known; use batch, instance, layer, group or rms"),
    "dtype": (
        "layer",
        (3, 4),
        {"dtype": "int8"},
        "dtype 'int8' is not known; use float16, bfloat16, float32 or float64",
    ),
    "convention": (
        "layer",
        (3, 4),
        {"convention": "caffe"},
        "convention 'caffe' is not known; use torch, keras, flax, onnx, mlx, d2l or cs231n",
    ),
    "convention_without_kind": (
        "layer",
        (3, 4),
        {"convention": "d2l"},
        "the d2l convention has no LayerNorm; it has batch",
    ),
    "foreign_option": (
        "layer",
        (3, 4),
        {"groups": 2},
        "layer has no option groups; it belongs to group",
    ),
    "foreign_option_of_several": (
        "group",
        (3, 4),
        {"groups": 2, "momentum": 0.1},
        "group has no option momentum; it belongs to batch or instance",
    ),
    "momentum_none_is_an_option_too": ("rms", (3, 4), {"momentum": None}, "rms has no option momentum"),
    "unknown_option": ("layer", (3, 4), {"epsilon": 1.0}, "layer has no option epsilon; no kind has it"),
    "rms_bias": ("rms", (3, 4), {"bias": [1]}, "rms has no option bias; it belongs to batch, instance, layer or group"),
    "rms_ddof": ("rms", (3, 4), {"ddof": 1}, "rms has no option ddof"),
    "empty": ("layer", (3, 0), {}, "the tensor has no elements (shape (3, 0))"),
    "number_batch": ("batch", (), {}, "batch needs (N, C) or more; the tensor is a single number"),
    "number_layer": ("layer", (), {}, "layer needs one axis or more; the tensor is a single number"),
    "vector_batch": ("batch", (4,), {}, "batch needs (N, C) or more; the tensor is shape (4,)"),
    "vector_instance": ("instance", (4,), {}, "instance needs (N, C, L), or (C, L) or more; the tensor is shape (4,)"),
    "vector_group": ("group", (4,), {"groups": 2}, "group needs (N, C) or more; the tensor is shape (4,)"),
    "mode": ("batch", (3, 4), {"mode": "test"}, "mode is 'test'; use train or eval"),
    "ddof_2": ("batch", (3, 4), {"ddof": 2}, "ddof is 2; use 0 or 1"),
    "ddof_true": ("batch", (3, 4), {"ddof": True}, "ddof is True; use 0 or 1"),
    "running_ddof": ("batch", (3, 4), {"running_ddof": -1}, "running_ddof is -1; use 0 or 1"),
    "ddof_1_of_one": ("layer", (3, 1), {"ddof": 1}, "--ddof 1 divides by n - 1 = 0: each statistic has n = 1 value"),
    "running_ddof_1_of_one": (
        "batch",
        (1, 4),
        {"convention": "keras", "running_ddof": 1},
        "--running-ddof 1 divides by n - 1 = 0: each statistic has n = 1 value; use --running-ddof 0",
    ),
    "eps_negative": ("layer", (3, 4), {"eps": -1e-5}, "eps is -1e-05; it must be a finite number, 0 or more"),
    "eps_nan": ("layer", (3, 4), {"eps": float("nan")}, "eps is nan; it must be a finite number, 0 or more"),
    "eps_infinite": ("layer", (3, 4), {"eps": float("inf")}, "eps is inf; it must be a finite number, 0 or more"),
    "eps_text": ("layer", (3, 4), {"eps": "1e-5"}, "eps is '1e-5'; it must be a number"),
    "eps_true": ("layer", (3, 4), {"eps": True}, "eps is True; it must be a number"),
    "eps_list": ("layer", (3, 4), {"eps": [1e-5]}, "eps is [1e-05]; it must be a number"),
    "eps_array": ("layer", (3, 4), {"eps": np.array([1.0, 2.0])}, "eps is array([1., 2.]); it must be a number"),
    "momentum_above_1": ("batch", (3, 4), {"momentum": 1.5}, "momentum is 1.5; it must be between 0 and 1"),
    "momentum_below_0": ("batch", (3, 4), {"momentum": -0.1}, "momentum is -0.1; it must be between 0 and 1"),
    "decay_above_1": ("batch", (3, 4), {"decay": 9}, "decay is 9; it must be between 0 and 1"),
    "momentum_and_decay": (
        "batch",
        (3, 4),
        {"momentum": 0.1, "decay": 0.9},
        "--momentum and --decay say the same thing twice (decay = 1 - momentum); give one of them",
    ),
    "no_affine_with_bias": (
        "layer",
        (3, 4),
        {"affine": False, "bias": [1]},
        "--bias and --no-affine contradict each other; give one of them",
    ),
    "state_without_tracking": (
        "batch",
        (3, 4),
        {"track_running_stats": False, "running_var": [1]},
        "--running-var and --no-track-running-stats contradict each other; give one of them",
    ),
    "batches_negative": (
        "batch",
        (3, 4),
        {"num_batches_tracked": -1},
        "num_batches_tracked is -1; it must be 0 or more",
    ),
    "batches_fraction": (
        "batch",
        (3, 4),
        {"num_batches_tracked": 1.5},
        "num_batches_tracked is 1.5; it must be a whole number",
    ),
    "groups_missing": ("group", (3, 4), {}, "group needs the number of groups; give --groups N"),
    "groups_0": ("group", (3, 4), {"groups": 0}, "groups is 0; it must be 1 or more"),
    "groups_float": ("group", (3, 4), {"groups": 2.0}, "groups is 2.0; it must be a whole number"),
    "groups_true": ("group", (3, 4), {"groups": True}, "groups is True; it must be a whole number"),
    "groups_do_not_divide": (
        "group",
        (3, 8),
        {"groups": 3},
        "8 channels cannot be split into 3 groups; use 1, 2, 4 or 8",
    ),
    "groups_of_one_channel": ("group", (3, 1, 5), {"groups": 2}, "1 channel cannot be split into 2 groups; use 1"),
    "normalized_shape_other": (
        "layer",
        (3, 4),
        {"normalized_shape": (3,)},
        "normalized_shape (3,) does not end the tensor's shape (3, 4); its last 1 size would be (4,)",
    ),
    "normalized_shape_too_long": (
        "rms",
        (3, 4),
        {"normalized_shape": (1, 3, 4)},
        "normalized_shape (1, 3, 4) does not end the tensor's shape (3, 4); its last 2 sizes would be (3, 4)",
    ),
    "normalized_shape_empty": (
        "layer",
        (3, 4),
        {"normalized_shape": []},
        "normalized_shape is []; give the last sizes of the tensor, such as (4,)",
    ),
    "normalized_shape_float": (
        "layer",
        (3, 4),
        {"normalized_shape": 4.0},
        "normalized_shape is 4.0; give the last sizes",
    ),
    "normalized_shape_array": (
        "layer",
        (3, 4),
        {"normalized_shape": np.array([3, 4])},
        "normalized_shape is array([3, 4])",
    ),
    "channel_axis_beyond": (
        "batch",
        (3, 4),
        {"channel_axis": 2},
        "channel axis 2 does not exist; a tensor of shape (3, 4) has axes 0 to 1",
    ),
    "channel_axis_before": (
        "batch",
        (3, 4),
        {"channel_axis": -3},
        "channel axis -3 does not exist; a tensor of shape (3, 4) has axes 0 to 1",
    ),
    "channel_axis_float": ("batch", (3, 4), {"channel_axis": 1.0}, "channel_axis is 1.0; it must be a whole number"),
    "channel_axis_of_samples": (
        "instance",
        (3, 4, 5),
        {"channel_axis": 0},
        "channel axis 0 holds the samples of instance; use 1 to 2",
    ),
    "channel_axis_of_samples_group": (
        "group",
        (3, 4),
        {"groups": 1, "channel_axis": -2},
        "channel axis 0 holds the samples of group; use 1 to 1",
    ),
    "one_value_batch": (
        "batch",
        (1, 4),
        {},
        "BatchNorm needs more than 1 value per channel to compute a variance; "
        "batch size x spatial size is 1 in shape (1, 4) (channel axis 1)",
    ),
    "one_value_batch_eval": (
        "batch",
        (1, 4),
        {"mode": "eval", "track_running_stats": False},
        "BatchNorm needs more than 1 value per channel",
    ),
    "one_value_batch_mlx": ("batch", (1, 4), {"convention": "mlx"}, "BatchNorm needs more than 1 value per channel"),
    "one_value_instance": (
        "instance",
        (3, 4, 1),
        {},
        "InstanceNorm needs more than 1 value per channel to compute a variance; spatial size is 1 in shape (3, 4, 1)",
    ),
    "one_value_group": (
        "group",
        (1, 4),
        {"groups": 4},
        "GroupNorm needs more than 1 value per group to compute a variance; "
        "batch size x channels per group x spatial size is 1 in shape (1, 4)",
    ),
}


@pytest.mark.parametrize("case", list(REFUSALS.values()), ids=list(REFUSALS))
def test_refusal(case: tuple) -> None:
    kind, shape, options, message = case
    with pytest.raises(InputError, match="^" + re.escape(message)):
        planned(kind, shape, **options)


def test_a_way_out_of_one_value_is_hinted() -> None:
    with pytest.raises(InputError) as caught:
        planned("batch", (1, 4))
    assert caught.value.hint == "with running statistics --mode eval needs no batch variance"


# What looks like the refused cases and is computed
ACCEPTED: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "one_value_with_running_statistics": ("batch", (1, 4), {"mode": "eval"}),
    "one_sample_of_several_values": ("batch", (1, 4, 2), {}),
    "one_value_keras": ("batch", (1, 4), {"convention": "keras"}),
    "one_value_flax": ("batch", (1, 4), {"convention": "flax"}),
    "one_value_onnx": ("batch", (1, 4), {"convention": "onnx"}),
    "one_value_d2l": ("batch", (1, 4), {"convention": "d2l"}),
    "one_value_in_each_group_of_several_samples": ("group", (2, 4), {"groups": 4}),
    "one_element_layer": ("layer", (1,), {}),
    "one_element_rms": ("rms", (1,), {}),
    "eps_0": ("layer", (3, 4), {"eps": 0}),
    "none_is_not_given": ("layer", (3, 4), {"groups": None, "mode": None, "weight": None}),
    "numpy_integers": ("group", (3, 4), {"groups": np.int64(2), "channel_axis": np.int8(-1)}),
    "zero_dimensional_buffer": ("batch", (3, 4), {"num_batches_tracked": np.array(5)}),
}


@pytest.mark.parametrize("case", list(ACCEPTED.values()), ids=list(ACCEPTED))
def test_accepted(case: tuple) -> None:
    kind, shape, options = case
    assert planned(kind, shape, **options).shape == shape


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
def test_state_of_another_number_of_channels_is_refused(name: str) -> None:
    message = f"{name} has shape (3,); (4,) is needed, the number of channels of this tensor"
    with pytest.raises(InputError, match="^" + re.escape(message)):
        check_state_shape(planned("batch", (3, 4)), name, (3,))


def test_weight_of_another_shape_than_normalized_shape_is_refused() -> None:
    message = "weight has shape (4,); (3, 4) is needed, normalized_shape of this tensor"
    with pytest.raises(InputError, match="^" + re.escape(message)):
        check_state_shape(planned("layer", (2, 3, 4), normalized_shape=(3, 4)), "weight", (4,))


# Resolved options

OWN_LINES = {"weight_offset": 0, "cast": "after"}
OPTIONS: dict[str, tuple[str, tuple[int, ...], dict[str, Any], dict[str, Any]]] = {
    "batch": (
        "batch",
        (3, 4),
        {},
        {
            "eps": 1e-5,
            "affine": True,
            "momentum": 0.1,
            "track_running_stats": True,
            "ddof": 0,
            "running_ddof": 1,
            "channel_axis": 1,
        },
    ),
    "instance": (
        "instance",
        (3, 4, 5),
        {},
        {
            "eps": 1e-5,
            "affine": False,
            "momentum": 0.1,
            "track_running_stats": False,
            "ddof": 0,
            "running_ddof": 1,
            "channel_axis": 1,
        },
    ),
    "layer": ("layer", (3, 4), {}, {"eps": 1e-5, "affine": True, "ddof": 0, "normalized_shape": [4], **OWN_LINES}),
    "group": (
        "group",
        (3, 4),
        {"groups": 2},
        {"eps": 1e-5, "affine": True, "ddof": 0, "channel_axis": 1, "groups": 2},
    ),
    "rms": ("rms", (3, 4), {}, {"eps": 2.0**-52, "affine": True, "normalized_shape": [4], **OWN_LINES}),
    "rms of Gemma": (
        "rms",
        (3, 4),
        {"weight_offset": 1, "cast": "before"},
        {"eps": 2.0**-52, "affine": True, "normalized_shape": [4], "weight_offset": 1, "cast": "before"},
    ),
    "given": (
        "batch",
        (3, 4, 5),
        {"eps": 0, "decay": 0.75, "ddof": 1, "running_ddof": 0, "channel_axis": -1, "affine": False},
        {
            "eps": 0.0,
            "affine": False,
            "momentum": 0.25,
            "track_running_stats": True,
            "ddof": 1,
            "running_ddof": 0,
            "channel_axis": 2,
        },
    ),
    "cumulative": (
        "batch",
        (3, 4),
        {"momentum": None, "track_running_stats": False},
        {
            "eps": 1e-5,
            "affine": True,
            "momentum": None,
            "track_running_stats": False,
            "ddof": 0,
            "running_ddof": 1,
            "channel_axis": 1,
        },
    ),
}


@pytest.mark.parametrize("case", list(OPTIONS.values()), ids=list(OPTIONS))
def test_options(case: tuple) -> None:
    kind, shape, given, expected = case
    assert planned(kind, shape, **given).options() == expected


@pytest.mark.parametrize("given", [1.0, np.int64(1), np.float32(1)], ids=lambda value: type(value).__name__)
def test_ddof_becomes_an_int(given: Any) -> None:
    assert type(planned("batch", (3, 4), ddof=given).ddof) is int


@pytest.mark.parametrize("parameter", ["weight", "bias"])
def test_a_parameter_implies_affine(parameter: str) -> None:
    assert planned("instance", (3, 4, 5), **{parameter: [1, 1, 1, 1]}).affine


@pytest.mark.parametrize("state", ["running_mean", "running_var", "num_batches_tracked"])
def test_a_state_implies_running_statistics(state: str) -> None:
    assert planned("instance", (3, 4, 5), **{state: 1}).track_running_stats


@pytest.mark.parametrize(
    ("decay", "momentum"), [(0.9, 0.1), (0.99, 0.01), (0.997, 0.003), (1 / 3, 0.6666666666666667), (1, 0.0), (0, 1.0)]
)
def test_decay_is_the_complement_of_the_decimal_number(decay: float, momentum: float) -> None:
    assert planned("batch", (3, 4), decay=decay).momentum == momentum


@pytest.mark.parametrize(("momentum", "weight"), [(0.3, 0.3), (None, 0.2)], ids=["constant", "cumulative"])
def test_weight_of_the_fifth_batch(momentum: float | None, weight: float) -> None:
    assert planned("batch", (3, 4), momentum=momentum).new_weight(4) == weight


@pytest.mark.parametrize(
    ("mode", "track", "source", "updates"),
    [
        ("train", True, "batch", True),
        ("train", False, "batch", False),
        ("eval", True, "running", False),
        ("eval", False, "batch", False),
    ],
)
def test_source_of_the_statistics(mode: str, track: bool, source: str, updates: bool) -> None:
    settled = planned("batch", (3, 4), mode=mode, track_running_stats=track)
    assert (settled.source, settled.updates_running) == (source, updates)


@pytest.mark.parametrize(
    ("dtype", "eps"), [("float16", 2.0**-23), ("bfloat16", 2.0**-23), ("float32", 2.0**-23), ("float64", 2.0**-52)]
)
def test_eps_of_rms_is_that_of_the_computing_dtype(dtype: str, eps: float) -> None:
    assert planned("rms", (3, 4), dtype).eps == eps


def test_eps_of_rms_is_that_of_the_dtype_after_the_cast() -> None:
    assert plan("rms", (3, 4), "float64", {"dtype": "float16"}).eps == 2.0**-23


# Conventions. The numbers are the frameworks'; see normcli/conventions.py for where each stands.

EPS = {
    "torch": {"batch": 1e-5, "instance": 1e-5, "layer": 1e-5, "group": 1e-5, "rms": 2.0**-23},
    "keras": {"batch": 1e-3, "instance": 1e-3, "layer": 1e-3, "group": 1e-3, "rms": 1e-6},
    "flax": {"batch": 1e-5, "instance": 1e-6, "layer": 1e-6, "group": 1e-6, "rms": 1e-6},
    "onnx": {"batch": 1e-5, "instance": 1e-5, "layer": 1e-5, "group": 1e-5, "rms": 1e-5},
    "mlx": {"batch": 1e-5, "instance": 1e-5, "layer": 1e-5, "group": 1e-5, "rms": 1e-5},
    "d2l": {"batch": 1e-5},
    "cs231n": {"batch": 1e-5, "layer": 1e-5, "group": 1e-5},
}
SHAPE = (3, 4, 6, 2)


@pytest.mark.parametrize(
    ("name", "kind", "eps"), [(name, kind, eps) for name, kinds in EPS.items() for kind, eps in kinds.items()]
)
def test_eps_of_a_convention(name: str, kind: str, eps: float) -> None:
    given = {"group": {"groups": 2}}.get(kind, {})
    assert planned(kind, SHAPE, "float32", convention=name, **given).eps == eps


def test_all_conventions_are_in_the_table() -> None:
    assert {name: set(convention.eps) for name, convention in CONVENTIONS.items()} == {
        name: set(kinds) for name, kinds in EPS.items()
    }


# weight of the new batch, running_ddof, channel axis of four, interleaved groups, one value per channel computed
TRAITS = {
    "torch": (0.1, 1, 1, False, False),
    "keras": (0.01, 0, 3, False, True),
    "flax": (0.01, 0, 3, False, True),
    "onnx": (0.1, 0, 1, False, True),
    "mlx": (0.1, 1, 3, True, False),
    "d2l": (0.1, 0, 1, False, True),
    "cs231n": (0.1, 0, 1, False, True),
}


@pytest.mark.parametrize("name", TRAITS)
def test_traits_of_a_convention(name: str) -> None:
    settled = planned("batch", SHAPE, convention=name)
    assert (
        settled.momentum,
        settled.running_ddof,
        settled.layout.channel_axis,
        settled.convention.interleaved_groups,
        settled.convention.one_value_per_channel,
    ) == TRAITS[name]


@pytest.mark.parametrize(
    ("name", "sense"),
    [("torch", "new"), ("keras", "old"), ("flax", "old"), ("onnx", "old"), ("mlx", "new"), ("d2l", "old")],
)
def test_sense_of_the_framework_s_own_momentum(name: str, sense: str) -> None:
    assert CONVENTIONS[name].momentum_sense == sense


@pytest.mark.parametrize(
    ("name", "affine"), [("torch", False), ("keras", True), ("flax", True), ("onnx", True), ("mlx", False)]
)
def test_affine_of_instance_norm(name: str, affine: bool) -> None:
    assert planned("instance", SHAPE, convention=name).affine is affine


# option given with the keras convention, resolved
OVERRIDES = {
    "eps": (1e-5, 1e-5),
    "decay": (0.9, 0.1),
    "momentum": (0.5, 0.5),
    "running_ddof": (1, 1),
    "channel_axis": (1, 1),
}


@pytest.mark.parametrize("option", OVERRIDES)
def test_an_option_given_wins_over_the_convention(option: str) -> None:
    given, resolved = OVERRIDES[option]
    settled = planned("batch", SHAPE, convention="keras", **{option: given})
    assert settled.options()["momentum" if option == "decay" else option] == resolved


@pytest.mark.parametrize("name", TRAITS)
def test_no_convention_changes_the_mode(name: str) -> None:
    assert planned("batch", SHAPE, convention=name).mode == "train"


# Words


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_has_eps(name: str) -> None:
    assert "eps" in KINDS[name].options


@pytest.mark.parametrize(("choices", "words"), [([1], "1"), ([1, 2], "1 or 2"), ("abc", "a, b or c")])
def test_either(choices: Any, words: str) -> None:
    assert either(choices) == words


def test_flag() -> None:
    assert flag("num_batches_tracked") == "--num-batches-tracked"


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.ma.array([[1.0, 2.0]], mask=[[True, False]]), {}, "masked array"),
        (np.ones((2, 2), np.complex128), {}, "holds complex128 values"),
        ([[1.0, 2.0]], {"out": [0.0]}, "out is a list"),
        ([[1.0, 2.0]], {"kind": ["layer"]}, "is not known"),
    ],
    ids=["masked", "complex", "list for out", "list for kind"],
)
def test_what_python_gives_is_refused_in_words(x: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        normalize(x, **({"kind": "layer"} | options))
