"""The catalogue of slips: the keys that scripts rely on, and what each slip changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from normcli.calculate import initial_state, normalize
from normcli.planning.plan import plan
from normcli.teaching.figures import Figures
from normcli.teaching.sheet import Sheet
from normcli.teaching.slips import KEYS, SLIPS, formatted
from normcli.teaching.work import Work, right

# typo and permuted are judgements on the answer itself (normcli.teaching.check); the others are rows.
STABLE = [
    "ddof1", "eps_omitted", "eps_outside", "eps_other", "axes_layer", "axes_batch", "axes_instance", "axes_global",
    "axes_group", "channel_last", "group_interleaved", "groups_swapped", "rms_not_centered", "centered_not_rms",
    "var_not_std", "one_pass", "weight_omitted", "bias_omitted", "affine_omitted", "affine_swapped", "weight_plus_one",
    "train_for_eval", "eval_for_train", "eval_with_updated", "momentum_reversed", "running_var_biased",
    "running_var_init_zero", "running_std", "running_no_old", "updates_off_by_one", "running_swapped", "rounded_steps",
    "sign_flipped",
]  # fmt: skip

BN1D = np.array([[1.0, 2, 4, 1], [6, 3, 2, 4], [2, 4, 6, 1]])
X = np.random.default_rng(5).normal(0.5, 1.5, (2, 4, 3))
WEIGHT, BIAS = np.array([1.5, -0.7, 0.4, 2.0]), np.array([0.3, -1.1, 0.8, 0.2])
RUNNING = {"running_mean": np.array([0.2, -0.4, 0.9, 0.1]), "running_var": np.array([1.5, 0.6, 2.2, 0.9])}
AFFINE = {"weight": WEIGHT, "bias": BIAS}


def work(kind: str, x: np.ndarray, **options: Any) -> Work:
    settled = plan(kind, x.shape, "float64", options)
    return right(Sheet(x), settled, initial_state(settled, options))


def first(key: str, start: Work, quantity: str = "output") -> np.ndarray:
    return Figures(KEYS[key].works(start)[0])[quantity]


@pytest.mark.parametrize("key", STABLE)
def test_stable_key_is_in_the_catalogue(key: str) -> None:
    assert key in KEYS


def test_keys_are_unique() -> None:
    assert len(KEYS) == len(SLIPS)


WORKS = {
    "batch": ("batch", {**AFFINE, **RUNNING}),
    "batch eval": ("batch", {**AFFINE, **RUNNING, "mode": "eval"}),
    "batch ddof1": ("batch", {"ddof": 1, "momentum": None, "num_batches_tracked": 2, **RUNNING}),
    "instance": ("instance", AFFINE),
    "instance tracking": ("instance", RUNNING),
    "instance eval": ("instance", {**RUNNING, "mode": "eval"}),
    "layer": ("layer", {"normalized_shape": (4, 3)}),
    "group": ("group", {**AFFINE, "groups": 2}),
    "group of mlx": ("group", {"groups": 2, "convention": "mlx", "channel_axis": 1}),
    "rms": ("rms", {"eps": 1e-3}),
}
NAMES = ("mean", "mean_square", "var", "var_unbiased", "rstd", "normalized", "output", "running_mean", "running_var")


@pytest.mark.parametrize(("kind", "options"), WORKS.values(), ids=WORKS)
def test_work_without_a_slip_is_the_reference(kind: str, options: dict[str, Any]) -> None:
    result = normalize(X, kind, steps=True, **options)
    named = [name for name in NAMES if getattr(result, name) is not None]
    worked = Figures(work(kind, X, **options))
    np.testing.assert_allclose(
        np.concatenate([np.ravel(worked[name]) for name in named]),
        np.concatenate([np.ravel(getattr(result, name)) for name in named]),
        rtol=1e-13,
        atol=1e-14,
    )


# On the article's batch (3, 4): the signatures that are known from it.
SIGNATURES = {
    "ddof1": ("output", {}, [-0.755928, -0.999995, 0.0, -0.577349]),
    "momentum_reversed": ("running_mean", {}, [2.7, 2.7, 3.6, 1.8]),
    "running_var_biased": ("running_var", {}, [1.366667, 0.966667, 1.166667, 1.1]),
    "running_std": ("running_var", {}, [1.164575, 1.0, 1.1, 1.073205]),
    "running_var_init_zero": ("running_var", {}, [0.7, 0.1, 0.4, 0.3]),
    "running_no_old": ("running_var", {}, [7.0, 1.0, 4.0, 3.0]),
    "eval_for_train": ("output", {}, [0.999995, 1.99999, 3.99998, 0.999995]),
    "train_for_eval": ("output", {"mode": "eval"}, [-0.925819, -1.224736, 0.0, -0.707105]),
}


@pytest.mark.parametrize(
    ("key", "quantity", "options", "row"), [(key, *case) for key, case in SIGNATURES.items()], ids=SIGNATURES
)
def test_signature_on_the_articles_batch(key: str, quantity: str, options: dict[str, Any], row: list[float]) -> None:
    given = np.atleast_2d(first(key, work("batch", BN1D, **options), quantity))
    np.testing.assert_allclose(given[0], row, atol=6e-7)


# Each slip said another way: as a call of the library without the slip, or as plain arithmetic on one.
def plain(kind: str, **options: Any) -> np.ndarray:
    return np.asarray(normalize(X, kind, **options).output)


SAME = {
    "eps_omitted": ("batch", AFFINE, plain("batch", eps=0, **AFFINE)),
    "eps_other": ("batch", AFFINE, plain("batch", eps=1e-3, **AFFINE)),
    "axes_layer": ("batch", {}, plain("layer", normalized_shape=(4, 3))),
    "axes_batch": ("instance", {}, plain("batch")),
    "axes_instance": ("batch", {}, plain("instance")),
    "axes_group": ("batch", {}, plain("group", groups=2)),
    "axes_global": ("batch", {}, plain("layer", normalized_shape=(2, 4, 3))),
    "channel_last": ("instance", {}, plain("instance", channel_axis=2)),
    "group_interleaved": ("group", {"groups": 2}, plain("group", groups=2, convention="mlx", channel_axis=1)),
    "groups_swapped": ("group", {"groups": 1}, plain("group", groups=4)),
    "rms_not_centered": ("layer", {}, plain("rms", eps=1e-5)),
    "centered_not_rms": ("rms", {"eps": 1e-5}, plain("layer")),
    "weight_omitted": ("batch", AFFINE, plain("batch", bias=BIAS)),
    "bias_omitted": ("batch", AFFINE, plain("batch", weight=WEIGHT)),
    "affine_omitted": ("batch", AFFINE, plain("batch")),
    "affine_swapped": ("batch", AFFINE, plain("batch", weight=BIAS, bias=WEIGHT)),
    "weight_plus_one": ("batch", AFFINE, plain("batch", weight=WEIGHT + 1, bias=BIAS)),
    "running_swapped": (
        "batch",
        {"mode": "eval", "running_mean": RUNNING["running_var"], "running_var": np.abs(RUNNING["running_mean"])},
        plain("batch", mode="eval", running_mean=np.abs(RUNNING["running_mean"]), running_var=RUNNING["running_var"]),
    ),
    "sign_flipped": ("batch", AFFINE, -plain("batch", **AFFINE)),
    "only_centered": ("instance", {}, X - X.mean(2, keepdims=True)),
    "var_not_std": ("instance", {"eps": 0.1}, (X - X.mean(2, keepdims=True)) / (X.var(2, keepdims=True) + 0.1)),
    "eps_outside": ("instance", {"eps": 0.1}, (X - X.mean(2, keepdims=True)) / (X.std(2, keepdims=True) + 0.1)),
}  # fmt: skip


@pytest.mark.parametrize(("key", "kind", "options", "expected"), [(key, *case) for key, case in SAME.items()], ids=SAME)
def test_slip_gives_what_the_slipped_call_gives(
    key: str, kind: str, options: dict[str, Any], expected: np.ndarray
) -> None:
    np.testing.assert_allclose(first(key, work(kind, X, **options)), expected, rtol=1e-12, atol=1e-13)


def test_second_update_of_a_cumulative_average_weighs_less() -> None:
    start = work("batch", BN1D, momentum=None, num_batches_tracked=1)
    no_update, two_updates = KEYS["updates_off_by_one"].works(start)
    assert Figures(no_update)["running_mean"].tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(Figures(two_updates)["running_mean"], BN1D.mean(0) * (1 / 2 * 2 / 3 + 1 / 3))


def test_updated_statistics_normalize_the_batch_that_updated_them() -> None:
    updated = normalize(X, "batch", **RUNNING)
    expected = plain("batch", mode="eval", running_mean=updated.running_mean, running_var=updated.running_var)
    np.testing.assert_allclose(first("eval_with_updated", work("batch", X, **RUNNING)), expected, rtol=1e-12)


NOT_THERE = {
    "ddof1 in eval": ("ddof1", "batch", {"mode": "eval"}),
    "ddof1 for rms": ("ddof1", "rms", {}),
    "train_for_eval in training": ("train_for_eval", "batch", {}),
    "momentum_reversed without running statistics": ("momentum_reversed", "layer", {}),
    "momentum_reversed in eval": ("momentum_reversed", "batch", {"mode": "eval"}),
    "weight_omitted without a weight": ("weight_omitted", "batch", {}),
    "groups_swapped for batch": ("groups_swapped", "batch", {}),
    "centered_not_rms for layer": ("centered_not_rms", "layer", {}),
    "eps_omitted with eps 0": ("eps_omitted", "batch", {"eps": 0}),
}


@pytest.mark.parametrize(("key", "kind", "options"), NOT_THERE.values(), ids=NOT_THERE)
def test_slip_does_not_apply(key: str, kind: str, options: dict[str, Any]) -> None:
    assert KEYS[key].works(work(kind, X, **options)) == []


@pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: slip.key)
def test_words_can_be_filled_in(slip: Any) -> None:
    settled = plan("group", (2, 4, 3), "float64", {"groups": 2})
    words = [formatted(text, "7", settled) for text in (slip.gives, slip.slipped, slip.instead, slip.right)]
    assert all(words)
