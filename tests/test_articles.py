"""The numbers and claims of the five articles that the project started from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normcli

# bn1d: BatchNorm1d's parameters explained. The article prints four decimals; six were recomputed with torch.

BN1D = np.array([[1.0, 2, 4, 1], [6, 3, 2, 4], [2, 4, 6, 1]])
BN1D_TRAIN = [
    [-0.925819, -1.224736, 0, -0.707105],
    [1.388729, 0, -1.224743, 1.414210],
    [-0.462910, 1.224736, 1.224743, -0.707105],
]
BN1D_UNBIASED = [-0.755928, -0.999995, 0, -0.577349]  # row 0 of the article's false claim
SIX_DECIMALS = {"rtol": 0, "atol": 1e-6}  # printed by torch, whose last digit may be one off


def after_one_step() -> dict[str, Any]:
    result = normcli.normalize(BN1D, "batch")
    return {"running_mean": result.running_mean, "running_var": result.running_var}


BN1D_STATISTICS = {
    "mean": [3, 3, 4, 2],
    "var": [14 / 3, 2 / 3, 8 / 3, 2],
    "var_unbiased": [7, 1, 4, 3],
    "running_mean": [0.3, 0.3, 0.4, 0.2],
    "running_var": [1.6, 1.0, 1.3, 1.2],
}


@pytest.mark.parametrize("quantity", BN1D_STATISTICS)
def test_bn1d_statistics(quantity: str) -> None:
    result = normcli.normalize(BN1D, "batch")
    np.testing.assert_allclose(getattr(result, quantity), BN1D_STATISTICS[quantity], rtol=2e-16)


BN1D_OUTPUTS = {
    "a_train": ({}, BN1D_TRAIN),
    "c_eval_after_one_step": (
        {"mode": "eval", **after_one_step()},
        [
            [0.553397, 1.699991, 3.157397, 0.730294],
            [4.506232, 2.699986, 1.403288, 3.468895],
            [1.343964, 3.699981, 4.911506, 0.730294],
        ],
    ),
    "d_fresh_eval": ({"mode": "eval"}, BN1D / np.sqrt(1 + 1e-5)),
    "e_eval_without_running_statistics": ({"mode": "eval", "track_running_stats": False}, BN1D_TRAIN),
    "keras_train": (
        {"convention": "keras", "channel_axis": 1},
        [
            [-0.925721, -1.223827, 0, -0.70693],
            [1.388581, 0, -1.224515, 1.41386],
            [-0.46286, 1.223827, 1.224515, -0.70693],
        ],
    ),
}


@pytest.mark.parametrize("case", list(BN1D_OUTPUTS.values()), ids=list(BN1D_OUTPUTS))
def test_bn1d_output(case: tuple) -> None:
    options, expected = case
    np.testing.assert_allclose(normcli.normalize(BN1D, "batch", **options).output, expected, **SIX_DECIMALS)


def test_bn1d_eval_without_running_statistics_is_train_bit_for_bit() -> None:
    evaluated = normcli.normalize(BN1D, "batch", mode="eval", track_running_stats=False).output
    np.testing.assert_array_equal(evaluated, normcli.normalize(BN1D, "batch").output)


def test_bn1d_false_claim_is_what_ddof_1_gives() -> None:
    result = normcli.normalize(BN1D, "batch", mode="eval", track_running_stats=False, ddof=1)
    np.testing.assert_allclose(result.output[0], BN1D_UNBIASED, **SIX_DECIMALS)


@pytest.mark.parametrize(
    "options",
    [{}, {"mode": "eval"}, {"mode": "eval", "track_running_stats": False}, {"mode": "eval", **after_one_step()}],
    ids=["train", "fresh_eval", "eval_without_running_statistics", "eval_after_one_step"],
)
def test_bn1d_false_claim_arises_in_no_mode(options: dict[str, Any]) -> None:
    output = normcli.normalize(BN1D, "batch", **options).output
    assert np.abs(output[0] - BN1D_UNBIASED).max() > 0.1


def test_bn1d_output_variance_is_not_1_but_v_over_v_plus_eps() -> None:
    variance = normcli.normalize(BN1D, "batch").output.var(axis=0)
    np.testing.assert_allclose(variance, [0.999998, 0.999985, 0.999996, 0.999995], **SIX_DECIMALS)


def test_bn1d_batch_size_1_trains_when_there_are_several_values_per_channel() -> None:
    assert normcli.normalize(BN1D[np.newaxis], "batch").output.shape == (1, 3, 4)


# Other kinds on the same data, row 0
BN1D_ROWS = {
    "layer": ("layer", {}, [-0.816494, 0, 1.632988, -0.816494]),
    "rms": ("rms", {"eps": 1e-5}, [0.426401, 0.852802, 1.705604, 0.426401]),
    "group": ("group", {"groups": 2}, [-0.99998, 0.99998, 0.999998, -0.999998]),
}


@pytest.mark.parametrize("case", list(BN1D_ROWS.values()), ids=list(BN1D_ROWS))
def test_bn1d_data_in_other_kinds(case: tuple) -> None:
    kind, options, expected = case
    np.testing.assert_allclose(normcli.normalize(BN1D, kind, **options).output[0], expected, **SIX_DECIMALS)


# What the running statistics become under other conventions and common slips
RUNNING = {
    "flax": ({"convention": "flax", "channel_axis": 1}, [0.03, 0.03, 0.04, 0.02], [1.036667, 0.996667, 1.016667, 1.01]),
    "keras": (
        {"convention": "keras", "channel_axis": 1},
        [0.03, 0.03, 0.04, 0.02],
        [1.036667, 0.996667, 1.016667, 1.01],
    ),
    "mlx": ({"convention": "mlx"}, [0.3, 0.3, 0.4, 0.2], [1.6, 1.0, 1.3, 1.2]),
    "onnx": ({"convention": "onnx"}, [0.3, 0.3, 0.4, 0.2], [1.366667, 0.966667, 1.166667, 1.1]),
    "onnx_with_the_momentum_of_torch": (
        {"convention": "onnx", "decay": 0.1},
        [2.7, 2.7, 3.6, 1.8],
        [4.3, 0.7, 2.5, 1.9],
    ),
    "torch_with_the_momentum_of_keras": ({"momentum": 0.9}, [2.7, 2.7, 3.6, 1.8], [6.4, 1.0, 3.7, 2.8]),
    "d2l": ({"convention": "d2l"}, [0.3, 0.3, 0.4, 0.2], [1.366667, 0.966667, 1.166667, 1.1]),
}


@pytest.mark.parametrize("case", list(RUNNING.values()), ids=list(RUNNING))
def test_running_statistics_under_a_convention(case: tuple) -> None:
    options, mean, var = case
    result = normcli.normalize(BN1D, "batch", **options)
    np.testing.assert_allclose([result.running_mean, result.running_var], [mean, var], **SIX_DECIMALS)


# d2l-article: BatchNorm from scratch


def test_d2l_output_is_that_of_torch() -> None:
    output = normcli.normalize(BN1D, "batch", convention="d2l").output
    np.testing.assert_array_equal(output, normcli.normalize(BN1D, "batch").output)


def test_d2l_one_sample_gives_zeros() -> None:
    np.testing.assert_array_equal(normcli.normalize(BN1D[:1], "batch", convention="d2l").output, np.zeros((1, 4)))


def test_d2l_one_sample_shrinks_the_running_variance() -> None:
    result = normcli.normalize(BN1D[:1], "batch", convention="d2l")
    np.testing.assert_allclose(result.running_var, [0.9] * 4, rtol=2e-16)


# my-bn: "implement BatchNorm yourself": decay .99, eps 1e-7, running statistics from zeros

MY_BN = np.random.default_rng(24).standard_normal((2, 3, 4))
MY_BN_OPTIONS = {"eps": 1e-7, "decay": 0.99, "running_mean": np.zeros(3), "running_var": np.zeros(3)}


def test_my_bn_running_mean_is_a_hundredth_of_the_mean() -> None:
    result = normcli.normalize(MY_BN, "batch", **MY_BN_OPTIONS)
    np.testing.assert_allclose(result.running_mean, 0.01 * MY_BN.mean((0, 2)), rtol=1e-14)


def test_my_bn_running_var_is_a_hundredth_of_the_unbiased_variance() -> None:
    result = normcli.normalize(MY_BN, "batch", **MY_BN_OPTIONS)
    np.testing.assert_allclose(result.running_var, 0.01 * MY_BN.var((0, 2), ddof=1), rtol=1e-14)


def test_my_bn_running_var_from_ones_differs_by_099() -> None:
    from_ones = normcli.normalize(MY_BN, "batch", eps=1e-7, momentum=0.01).running_var
    np.testing.assert_allclose(
        from_ones - normcli.normalize(MY_BN, "batch", **MY_BN_OPTIONS).running_var, [0.99] * 3, rtol=1e-14
    )


def test_my_bn_fresh_eval_multiplies_by_3162() -> None:
    evaluated = normcli.normalize(MY_BN, "batch", **MY_BN_OPTIONS, mode="eval").output
    np.testing.assert_allclose(evaluated, MY_BN / np.sqrt(1e-7), rtol=1e-15)


# bn2d-check: BatchNorm2d, one element checked by hand; everything printed to four decimals

BN2D = np.array(
    [
        [
            [[-2.4308, -1.0281, -1.1322, 0.9819], [-0.4069, 0.7973, 1.6296, 1.6797], [0.2802, -0.8285, 2.0101, 0.1286]],
            [
                [-0.5740, 0.1970, -0.7209, -0.7231],
                [-0.1489, 0.4993, 0.4159, 1.4238],
                [0.0334, -0.6333, 0.1308, -0.2180],
            ],
        ]
    ]
)
BN2D_WEIGHT = np.array([0.5653, 0.0322])
BN2D_PRINTED = np.array(
    [
        [
            [
                [-1.1237, -0.5106, -0.5561, 0.3679],
                [-0.2391, 0.2873, 0.6510, 0.6729],
                [0.0612, -0.4233, 0.8173, -0.0050],
            ],
            [
                [-0.0293, 0.0120, -0.0372, -0.0373],
                [-0.0066, 0.0282, 0.0237, 0.0777],
                [0.0032, -0.0325, 0.0084, -0.0103],
            ],
        ]
    ]
)
HALF_UNIT = 5e-5


def bn2d(**options: Any) -> normcli.Result:
    return normcli.normalize(BN2D, "batch", weight=BN2D_WEIGHT, bias=[0.0, 0.0], steps=True, **options)


def bn2d_tolerance() -> np.ndarray:
    """Half a unit of the printed answer, and to first order what the rounding of inputs and weight can move it."""
    result = bn2d()
    n = result.plan.layout.count
    normalized = result.normalized.reshape(2, n)
    jacobian = np.eye(n) - 1 / n - normalized[:, :, np.newaxis] * normalized[:, np.newaxis] / n
    moved_by_input = np.abs(jacobian).sum(-1) * (BN2D_WEIGHT * result.rstd)[:, np.newaxis]
    return (HALF_UNIT * (1 + moved_by_input + np.abs(normalized))).reshape(BN2D.shape)


BN2D_STATISTICS = {
    "mean": ([0.140075, -0.0265], 5e-7),
    "var": ([1.673045, 0.361741], 5e-7),
    "var_unbiased": ([1.825140, 0.394627], 5e-7),
    "running_mean": ([0.0140075, -0.00265], 5e-9),
    "running_var": ([1.082514, 0.939463], 5e-7),
}


@pytest.mark.parametrize("quantity", BN2D_STATISTICS)
def test_bn2d_statistics(quantity: str) -> None:
    expected, tolerance = BN2D_STATISTICS[quantity]
    np.testing.assert_allclose(getattr(bn2d(), quantity), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("quantity", "printed"), [("mean", 0.1401), ("var", 1.6730)])
def test_bn2d_statistics_as_printed(quantity: str, printed: float) -> None:
    assert getattr(bn2d(), quantity)[0] == pytest.approx(printed, rel=0, abs=HALF_UNIT)


def test_bn2d_element_worked_by_hand() -> None:
    assert bn2d().output[0, 0, 0, 0] == pytest.approx(-1.123582, rel=0, abs=5e-7)


def test_bn2d_element_with_the_unbiased_variance_would_be_another() -> None:
    assert bn2d(ddof=1).output[0, 0, 0, 0] == pytest.approx(-1.075748, rel=0, abs=5e-7)


def test_bn2d_printed_outputs_are_within_the_propagated_rounding() -> None:
    np.testing.assert_array_less(np.abs(bn2d().output - BN2D_PRINTED), bn2d_tolerance())


def test_bn2d_propagated_rounding_is_small() -> None:
    assert (bn2d_tolerance().min().round(6), bn2d_tolerance().max().round(6)) == (6.0e-5, 1.93e-4)


def test_bn2d_half_a_unit_alone_would_reject_6_of_24() -> None:
    assert np.count_nonzero(np.abs(bn2d().output - BN2D_PRINTED) > HALF_UNIT) == 6


def test_bn2d_the_unbiased_variance_is_not_within_the_propagated_rounding() -> None:
    assert (np.abs(bn2d(ddof=1).output - BN2D_PRINTED) > bn2d_tolerance()).any()


# four-norms: BN, LN, IN and GN on random tensors of the article's shapes (the layer norm's is smaller)


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(20).standard_normal(shape).astype(np.float32)


FOUR_NORMS = {
    "batch": ("batch", (20, 6, 10, 10), {}, (6,)),
    "layer": ("layer", (4, 8, 16, 16), {"normalized_shape": (8, 16, 16)}, (4,)),
    "instance": ("instance", (20, 100, 35, 45), {}, (20, 100)),
    "group_3": ("group", (20, 6, 10, 10), {"groups": 3}, (20, 3)),
    "group_6": ("group", (20, 6, 10, 10), {"groups": 6}, (20, 6)),
    "group_1": ("group", (20, 6, 10, 10), {"groups": 1}, (20, 1)),
}


@pytest.mark.parametrize("case", list(FOUR_NORMS.values()), ids=list(FOUR_NORMS))
def test_four_norms_keep_the_shape(case: tuple) -> None:
    kind, shape, options, statistics = case
    result = normcli.normalize(drawn(*shape), kind, **options)
    assert (result.output.shape, result.mean.shape) == (shape, statistics)


def test_four_norms_affine_of_a_fresh_instance_norm_changes_nothing() -> None:
    x = drawn(2, 5, 7, 9)
    np.testing.assert_array_equal(
        normcli.normalize(x, "instance", affine=True).output, normcli.normalize(x, "instance").output
    )


FOUR_NORMS_X = drawn(20, 6, 10, 10)


def test_four_norms_group_norm_with_a_group_for_each_channel_is_instance_norm() -> None:
    group = normcli.normalize(FOUR_NORMS_X, "group", groups=6)
    np.testing.assert_array_equal(group.output, normcli.normalize(FOUR_NORMS_X, "instance").output)


def test_four_norms_group_norm_with_one_group_is_layer_norm_over_all_but_the_batch() -> None:
    group = normcli.normalize(FOUR_NORMS_X, "group", groups=1)
    layer = normcli.normalize(FOUR_NORMS_X, "layer", normalized_shape=(6, 10, 10))
    np.testing.assert_array_equal(group.output, layer.output)


def test_four_norms_group_norm_with_one_group_is_not_layer_norm_over_the_last_axis() -> None:
    group = normcli.normalize(FOUR_NORMS_X, "group", groups=1)
    assert np.abs(group.output - normcli.normalize(FOUR_NORMS_X, "layer").output).max() > 1


def test_four_norms_group_norm_with_one_group_is_not_layer_norm_over_the_channels() -> None:
    over_channels = normcli.normalize(np.moveaxis(FOUR_NORMS_X, 1, -1), "layer").output
    group = normcli.normalize(FOUR_NORMS_X, "group", groups=1)
    assert np.abs(group.output - np.moveaxis(over_channels, -1, 1)).max() > 1


def test_four_norms_instance_norm_in_eval_with_running_statistics_is_not_group_norm() -> None:
    evaluated = normcli.normalize(FOUR_NORMS_X, "instance", mode="eval", track_running_stats=True)
    assert np.abs(evaluated.output - normcli.normalize(FOUR_NORMS_X, "group", groups=6).output).max() > 0.1


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_four_norms_parameters_of_group_norm_with_one_group_and_layer_norm_differ(name: str) -> None:
    group = normcli.normalize(FOUR_NORMS_X, "group", groups=1, **{name: np.ones(6)})
    layer = normcli.normalize(FOUR_NORMS_X, "layer", normalized_shape=(6, 10, 10), **{name: np.ones((6, 10, 10))})
    assert (group.plan.weight_shape, layer.plan.weight_shape) == ((6,), (6, 10, 10))


def test_four_norms_momentum_of_instance_norm_has_no_effect_without_running_statistics() -> None:
    assert normcli.normalize(FOUR_NORMS_X, "instance", momentum=0.9).running_mean is None


def test_four_norms_tracking_switches_what_eval_computes() -> None:
    tracked, untracked = (
        normcli.normalize(BN1D, "batch", mode="eval", track_running_stats=track) for track in (True, False)
    )
    assert np.abs(tracked.output - untracked.output).max() > 1


# MLX's grouping on the smallest example that shows it: x (1, 2, 4), channels last, two groups
INTERLEAVED = {
    "mlx": ({"convention": "mlx"}, [-1.34164, -1.34164, -0.447213, -0.447213]),
    "torch": ({"channel_axis": -1}, [-1.21268, -0.727606, -1.21268, -0.727606]),
}


@pytest.mark.parametrize("case", list(INTERLEAVED.values()), ids=list(INTERLEAVED))
def test_grouping_of_a_convention(case: tuple) -> None:
    options, expected = case
    output = normcli.normalize([[[0, 1, 2, 3], [4, 5, 6, 7]]], "group", groups=2, **options).output
    np.testing.assert_allclose(output[0, 0], expected, rtol=0, atol=5e-6)


# One sample of four channels of 2 x 2; the first four numbers of the output
SAMPLE = np.array([[[[1, 2], [3, 4]], [[10, 12], [14, 16]], [[-11, -10], [-9, -8]], [[0, 1], [5, 2]]]])
SAMPLES = {
    "group_1": ("group", {"groups": 1}, [-0.122975, 0, 0.122975, 0.24595]),
    "layer_over_everything": ("layer", {"normalized_shape": (4, 2, 2)}, [-0.122975, 0, 0.122975, 0.24595]),
    "group_2": ("group", {"groups": 2}, [-1.218493, -1.037975, -0.857458, -0.67694]),
    "group_2_interleaved": (
        "group",
        {"groups": 2, "convention": "mlx", "channel_axis": 1},
        [0.737309, 0.901155, 1.065001, 1.228848],
    ),
}


@pytest.mark.parametrize("case", list(SAMPLES.values()), ids=list(SAMPLES))
def test_one_sample_in_several_kinds(case: tuple) -> None:
    kind, options, expected = case
    output = normcli.normalize(SAMPLE, kind, **options).output
    np.testing.assert_allclose(output[0, 0].ravel(), expected, **SIX_DECIMALS)
