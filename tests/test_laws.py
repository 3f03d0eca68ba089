"""What holds for every tensor: the laws of normalization, on tensors that hypothesis makes up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as tensors

import normcli

LAWS = settings(deadline=None, max_examples=40, derandomize=True)

# Multiples of 1/64 below 64 in size: shifts and sums of them are exact.
GRID = st.integers(-4096, 4096).map(lambda ticks: ticks / 64)
SHAPES = st.tuples(st.integers(2, 4), st.sampled_from([2, 4, 6]), st.integers(2, 5), st.integers(1, 3))
TENSORS = SHAPES.flatmap(lambda shape: tensors.arrays(np.float64, shape, elements=GRID))
SHIFTS = st.integers(-(2**20), 2**20).map(lambda ticks: ticks / 64)
POWERS = st.integers(-400, 400)

KINDS: dict[str, dict[str, Any]] = {
    "batch": {},
    "instance": {},
    "layer": {"normalized_shape": None},
    "group": {"groups": 2},
}
each_centered_kind = pytest.mark.parametrize("kind", KINDS)
each_kind = pytest.mark.parametrize("kind", [*KINDS, "rms"])


def for_all(**strategies: Any) -> Callable[[Any], Any]:
    """A law: the test holds for whatever the strategies draw."""
    return lambda test: LAWS(given(**strategies)(test))


def normalized(x: np.ndarray, kind: str, **options: Any) -> normcli.Result:
    return normcli.normalize(x, kind, **{**KINDS.get(kind, {}), **options})


@each_centered_kind
@for_all(x=TENSORS, shift=SHIFTS)
def test_adding_a_constant_changes_nothing(kind: str, x: np.ndarray, shift: float) -> None:
    np.testing.assert_array_equal(normalized(x + shift, kind).output, normalized(x, kind).output)


@each_centered_kind
@for_all(x=TENSORS, shift=SHIFTS)
def test_adding_a_constant_changes_no_variance(kind: str, x: np.ndarray, shift: float) -> None:
    np.testing.assert_array_equal(normalized(x + shift, kind).var, normalized(x, kind).var)


@each_kind
@for_all(x=TENSORS, power=POWERS)
def test_scaling_by_a_power_of_two_changes_nothing_when_eps_is_0(kind: str, x: np.ndarray, power: int) -> None:
    np.testing.assert_array_equal(normalized(np.ldexp(x, power), kind, eps=0).output, normalized(x, kind, eps=0).output)


@each_kind
@for_all(x=TENSORS)
def test_flipping_the_sign_flips_the_output(kind: str, x: np.ndarray) -> None:
    np.testing.assert_array_equal(normalized(-x, kind).output, -normalized(x, kind).output)


@for_all(x=TENSORS)
def test_one_group_is_layer_norm_over_all_but_the_batch(x: np.ndarray) -> None:
    layer = normcli.normalize(x, "layer", normalized_shape=x.shape[1:])
    np.testing.assert_array_equal(normcli.normalize(x, "group", groups=1).output, layer.output)


@for_all(x=TENSORS)
def test_a_group_for_each_channel_is_instance_norm(x: np.ndarray) -> None:
    group = normcli.normalize(x, "group", groups=x.shape[1])
    np.testing.assert_array_equal(group.output, normcli.normalize(x, "instance").output)


@for_all(x=TENSORS)
def test_batch_norm_of_one_sample_is_instance_norm(x: np.ndarray) -> None:
    batch = normcli.normalize(x[:1], "batch")
    np.testing.assert_array_equal(batch.output, normcli.normalize(x[:1], "instance").output)


@for_all(x=TENSORS)
def test_group_norm_of_a_matrix_with_one_group_is_layer_norm(x: np.ndarray) -> None:
    group = normcli.normalize(x[:, :, 0, 0], "group", groups=1)
    np.testing.assert_array_equal(group.output, normcli.normalize(x[:, :, 0, 0], "layer").output)


@for_all(x=TENSORS)
def test_output_has_mean_0(x: np.ndarray) -> None:
    output = normcli.normalize(x, "batch").output
    np.testing.assert_allclose(output.mean((0, 2, 3)), 0, atol=1e-13)


@for_all(x=TENSORS, eps=st.sampled_from([1e-5, 1e-3, 1.0]))
def test_output_has_variance_v_over_v_plus_eps(x: np.ndarray, eps: float) -> None:
    result = normcli.normalize(x, "batch", eps=eps)
    np.testing.assert_allclose(result.output.var((0, 2, 3)), result.var / (result.var + eps), rtol=1e-12)


@for_all(x=TENSORS)
def test_output_of_rms_norm_has_mean_square_q_over_q_plus_eps(x: np.ndarray) -> None:
    result = normcli.normalize(x, "rms", eps=0.5)
    expected = result.mean_square / (result.mean_square + 0.5)
    np.testing.assert_allclose((result.output**2).mean(-1), expected, rtol=1e-12)


@each_kind
@for_all(x=TENSORS)
def test_reversing_the_samples_reverses_the_outputs(kind: str, x: np.ndarray) -> None:
    np.testing.assert_array_equal(normalized(x[::-1], kind).output, normalized(x, kind).output[::-1])


@pytest.mark.parametrize("quantity", ["mean", "var", "running_mean", "running_var"])
@for_all(x=TENSORS)
def test_reversing_the_samples_changes_no_batch_statistic(quantity: str, x: np.ndarray) -> None:
    reversed_, plain = normcli.normalize(x[::-1], "batch"), normcli.normalize(x, "batch")
    np.testing.assert_array_equal(getattr(reversed_, quantity), getattr(plain, quantity))


@pytest.mark.parametrize("kind", ["batch", "instance", "group"])
@for_all(x=TENSORS)
def test_channels_last_is_channels_first_on_moved_axes(kind: str, x: np.ndarray) -> None:
    last = normalized(np.moveaxis(x, 1, -1), kind, channel_axis=-1)
    np.testing.assert_array_equal(np.moveaxis(last.output, -1, 1), normalized(x, kind).output)


@for_all(x=TENSORS)
def test_interleaved_groups_are_consecutive_groups_of_sorted_channels(x: np.ndarray) -> None:
    channels = x.shape[1]
    order = [channel for group in range(2) for channel in range(group, channels, 2)]
    mlx = normcli.normalize(x, "group", groups=2, convention="mlx", channel_axis=1)
    np.testing.assert_array_equal(mlx.output[:, order], normcli.normalize(x[:, order], "group", groups=2).output)


@each_centered_kind
@for_all(x=TENSORS)
def test_weight_and_bias_are_applied_last(kind: str, x: np.ndarray) -> None:
    form = x.shape[-1:] if kind == "layer" else x.shape[1:2]
    plain = normalized(x, kind, weight=np.full(form, 4.0)).output
    np.testing.assert_array_equal(plain, 4 * normalized(x, kind).output)


@pytest.mark.parametrize("quantity", ["running_mean", "running_var"])
@for_all(x=TENSORS)
def test_one_after_another_equals_feeding_the_state_back_with_any_earlier_count(quantity: str, x: np.ndarray) -> None:
    # Without the cumulative average the number of batches plays no part.
    first = normcli.normalize(x, "batch")
    fed = {"running_mean": first.running_mean, "running_var": first.running_var}
    second = normcli.normalize(2 * x, "batch", **fed, num_batches_tracked=first.num_batches_tracked)
    np.testing.assert_array_equal(
        getattr(normcli.normalize(2 * x, "batch", **fed), quantity), getattr(second, quantity)
    )


@for_all(x=TENSORS)
def test_momentum_is_the_weight_of_the_new_batch(x: np.ndarray) -> None:
    first = normcli.normalize(x, "batch", momentum=0.25)
    second = normcli.normalize(
        x + 1, "batch", momentum=0.25, running_mean=first.running_mean, running_var=first.running_var
    )
    np.testing.assert_allclose(second.running_mean, 0.75 * 0.25 * first.mean + 0.25 * second.mean, atol=1e-13)


@pytest.mark.parametrize(
    ("running", "statistic"), [("running_mean", "mean"), ("running_var", "var_unbiased")], ids=["mean", "var"]
)
@for_all(x=TENSORS, y=TENSORS)
def test_momentum_none_averages_the_batches(running: str, statistic: str, x: np.ndarray, y: np.ndarray) -> None:
    channels = min(x.shape[1], y.shape[1])
    first = normcli.normalize(x[:, :channels], "batch", momentum=None)
    second = normcli.normalize(
        y[:, :channels],
        "batch",
        momentum=None,
        running_mean=first.running_mean,
        running_var=first.running_var,
        num_batches_tracked=first.num_batches_tracked,
    )
    expected = (getattr(first, statistic) + getattr(second, statistic)) / 2
    np.testing.assert_allclose(getattr(second, running), expected, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("quantity", ["running_mean", "running_var"])
@pytest.mark.parametrize(("decay", "momentum"), [(0.9, 0.1), (0.99, 0.01), (0.999, 0.001), (0.7, 0.3), (1, 0), (0, 1)])
@for_all(x=TENSORS)
def test_decay_is_the_other_way_to_say_momentum(quantity: str, decay: float, momentum: float, x: np.ndarray) -> None:
    by_decay, by_momentum = normcli.normalize(x, "batch", decay=decay), normcli.normalize(x, "batch", momentum=momentum)
    np.testing.assert_array_equal(getattr(by_decay, quantity), getattr(by_momentum, quantity))


@pytest.mark.parametrize(("momentum", "quantity"), [(0.0, "before"), (1.0, "batch")])
@for_all(x=TENSORS)
def test_momentum_at_its_ends_keeps_one_side_alone(momentum: float, quantity: str, x: np.ndarray) -> None:
    result = normcli.normalize(x, "batch", momentum=momentum)
    expected = {"before": np.ones(x.shape[1]), "batch": result.var_unbiased}
    np.testing.assert_array_equal(result.running_var, expected[quantity])


@pytest.mark.parametrize("kind", ["batch", "instance"])
@for_all(x=TENSORS)
def test_eval_leaves_the_state_alone(kind: str, x: np.ndarray) -> None:
    state = {"running_mean": np.arange(x.shape[1]) - 0.5, "running_var": np.arange(x.shape[1]) + 0.25}
    result = normcli.normalize(x, kind, mode="eval", num_batches_tracked=7, **state)
    np.testing.assert_array_equal(result.running_var, state["running_var"])


@for_all(x=TENSORS)
def test_eval_with_the_batch_s_own_statistics_is_train(x: np.ndarray) -> None:
    x = np.concatenate([x, -x])  # mean 0 and a variance that float64 need not round
    train = normcli.normalize(x, "batch", momentum=1.0, running_ddof=0)
    running = {"running_mean": train.running_mean, "running_var": train.running_var}
    np.testing.assert_allclose(normcli.normalize(x, "batch", mode="eval", **running).output, train.output, rtol=4e-16)


@for_all(x=TENSORS)
def test_mean_of_float32_is_correctly_rounded(x: np.ndarray) -> None:
    result = normcli.normalize(x.astype(np.float32), "layer", normalized_shape=x.shape)
    assert float(result.mean) == x.sum() / x.size
