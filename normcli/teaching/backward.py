"""The known slips of the backward pass, as rows: rules on its lines, which follow from those of the forward pass.

Sources of the rows: Kratzert's nine stages (2016) and what students of cs231n and makemore write in their place,
and the kernels of llm.c and of torch (aten/src/ATen/native/layer_norm.cpp).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from normcli.teaching.slip import GRADIENT, Slip
from normcli.teaching.work import Change, Work

_DX = frozenset({"grad_input"})
_PARAMETERS = GRADIENT - _DX
_WEIGHT = "a weight that is not 1"
_VARIES = "a grad_output that is not constant, and n of 4 or more"
_SCALE = "a variance far from 1"
_N = "another n"

_THIRD = "A * rstd + 2 * V * C / D"  # what flows through the normalized values alone, and what through the variance
_NO_WEIGHT = "grad_normalized = A * weight -> grad_normalized = A"
_SHARED = "grad_input = A + grad_mean / n -> grad_input ="  # what flows through the mean comes to it
# The formula in one line takes the mean of d for that of all that flows, which is the same where it is right.
_IN_ONE_LINE = "grad_mean = -sum(grad_centered) -> grad_mean = -sum(grad_normalized * rstd)"


def _rules(*rules: str, note: str = "") -> Change:
    return Change(backward="; ".join(rules), note=note)


def _either_way(rule: str, note: str = "") -> tuple[Change, ...]:
    """A change of what flows through the variance, in stages and in one line."""
    return (_rules(rule, note=note), _rules(_IN_ONE_LINE, rule, note=note))


def _parameters(pattern: str, result: str) -> tuple[Change, ...]:
    """A change of what weight receives, of what bias receives, and of both."""
    weight, bias = (f"{name} = {pattern} -> {name} = {result}" for name in ("grad_weight", "grad_bias"))
    return (_rules(weight, bias), _rules(weight), _rules(bias))


_RIGHT_WEIGHT = "sum(grad_output * normalized)"


def _bn_shortcut(work: Work) -> Iterator[Change]:
    layout = work.plan.layout
    if {*layout.axes, *layout.channels} == {*range(len(layout.view))} and not {*layout.axes} & {*layout.channels}:
        return  # a BatchNorm, where it is right
    for weight in ("weight *", ""):
        for total, part in (
            ("mean(grad_output, rest)", "mean(grad_output * normalized, rest)"),
            ("sum(grad_output, rest) / n", "sum(grad_output * normalized, rest) / n"),
        ):
            yield _rules(
                f"grad_input = A -> grad_input = {weight} rstd * (grad_output - {total} - normalized * {part})"
            )


BACKWARD: tuple[Slip, ...] = (
    Slip(key="stats_constant", gives="taking the statistics for constants in the backward pass",
         slipped="rstd * d", instead="lets the gradient flow through them too", right="{gradient}",
         changes=(
             _rules(f"{_THIRD} -> A * rstd", f"{_SHARED} A"),
             _rules(f"grad_input = {_THIRD} -> grad_input = A * rstd"),
         ), family="path", affects=_DX, tells=_VARIES),
    Slip(key="mean_path_omitted", gives="leaving out what flows through the mean, as RMSNorm does,",
         slipped="rstd * (d - normalized * mean(d * normalized))",
         instead="lets the gradient flow through the mean too", right="{gradient}",
         changes=_rules(f"{_SHARED} A"), family="path", affects=_DX,
         tells="a grad_output whose mean is not 0"),
    Slip(key="var_path_omitted", gives="leaving out what flows through the variance", slipped="rstd * (d - mean(d))",
         instead="lets the gradient flow through the variance too", right="{gradient}",
         changes=_rules(f"grad_centered = {_THIRD} -> grad_centered = A * rstd"), family="path", affects=_DX,
         tells=_VARIES),
    Slip(key="sums_not_divided", gives="not dividing {note} by n", slipped="sums in the place of means",
         instead="takes means of what flows through the statistics", right="{gradient}",
         changes=(
             _rules(f"{_THIRD} -> A * rstd + 2 * V * C", "grad_mean / n -> grad_mean", note="the sums"),
             _rules("grad_mean / n -> grad_mean", note="the sum for the mean"),
             _rules(f"{_THIRD} -> A * rstd + 2 * V * C", note="the sum for the variance"),
         ), family="sums", affects=_DX, tells=_N),
    Slip(key="ddof_in_one_place", gives="n in one place and n - 1 in another",
         slipped="one divisor in the variance, another in its gradient", instead="has one divisor in both",
         right="{gradient}",
         changes=(
             _rules("2 * V * C / n -> 2 * V * C / (n - 1)"),
             _rules("2 * V * C / (n - 1) -> 2 * V * C / n"),
             Change(options={"ddof": 1}, backward="2 * V * C / (n - 1) -> 2 * V * C / n"),
             Change(options={"ddof": 0}, backward="2 * V * C / n -> 2 * V * C / (n - 1)"),
         ), family="divisor", affects=_DX, tells="a smaller n"),
    Slip(key="weight_omitted_backward", gives="leaving the weight out of the backward pass", slipped="d = grad_output",
         instead="multiplies by it first", right="d = grad_output * weight",
         changes=_rules(_NO_WEIGHT), family="affine", affects=_DX, tells=_WEIGHT),
    Slip(key="weight_twice", gives="multiplying by the weight once more where the variance's part is taken",
         slipped="normalized * weight * mean(d * normalized)", instead="has the weight in d alone",
         right="normalized * mean(d * normalized) with d = grad_output * weight",
         changes=_either_way(f"{_THIRD} -> A * rstd + 2 * V * C / D * weight"), family="affine", affects=_DX,
         tells=_WEIGHT),
    Slip(key="weight_outside_sums", gives="multiplying by the weight at the end",
         slipped="weight * rstd * (g - mean(g) - normalized * mean(g * normalized)) with g = grad_output",
         instead="multiplies first, since the elements that share a mean have different weights", right="{gradient}",
         changes=_rules(f"{_NO_WEIGHT}; grad_input = A -> grad_input = A * weight"),
         family="affine", affects=_DX, tells=_WEIGHT),
    Slip(key="bn_shortcut", gives="BatchNorm's formula in one line",
         slipped="weight * rstd / n * (n * grad_output - grad_bias - normalized * grad_weight)",
         instead="does not sum the gradients of weight and bias over the elements that share a mean",
         right="{gradient}",
         changes=_bn_shortcut, family=None, affects=_DX, tells="more samples than one"),
    Slip(key="sign_of_dvar", gives="the wrong sign of the variance's part",
         slipped="rstd * (d - mean(d) + normalized * mean(d * normalized))", instead="subtracts it", right="{gradient}",
         changes=_rules("2 * V * C / D -> -2 * V * C / D"), family="dvar", affects=_DX, tells=_VARIES),
    Slip(key="sign_of_dmu", gives="the wrong sign of the mean's part",
         slipped="rstd * (d + mean(d) - normalized * mean(d * normalized))", instead="subtracts it", right="{gradient}",
         changes=_rules("grad_mean = -A -> grad_mean = A"), family="path", affects=_DX,
         tells="a grad_output whose mean is not 0"),
    Slip(key="half_or_two", gives="losing {note} in the variance's part", slipped="another multiple of grad_var",
         instead="has -0.5 * rstd^3 in one step and 2 * centered in another", right="{gradient}",
         changes=(
             _rules("2 * V * C / D -> 4 * V * C / D", note="the factor 0.5"),
             _rules("2 * V * C / D -> V * C / D", note="the factor 2"),
         ), family="dvar", affects=_DX, tells=_VARIES),
    Slip(key="power", gives="another power, {note}, in the gradient of the variance", slipped="(var + eps)^({note})",
         instead="has the power -3/2 there", right="-0.5 * (var + eps)^(-3/2)",
         changes=tuple(
             _rules(f"rstd^3 -> {other}", note=note)
             for other, note in (("rstd", "-1/2"), ("rstd^2", "-1"), ("rstd^4", "-2"))
         ), family="dvar", affects=_DX, tells=_SCALE, rare=True),
    Slip(key="rstd_dropped", gives="leaving out the last multiplication by rstd",
         slipped="d - mean(d) - normalized * mean(d * normalized)", instead="multiplies by it", right="{gradient}",
         changes=_rules("grad_input = A -> grad_input = A / rstd"), family="scale", affects=_DX, tells=_SCALE),
    Slip(key="y_for_xhat", gives="taking the output for the normalized values", slipped="{note}",
         instead="has the normalized values there", right="normalized",
         changes=(
             _rules("sum(A * normalized, rest) -> sum(A * output, rest)", note="sum(grad_output * output)"),
             *_either_way(f"{_THIRD} -> A * rstd - rstd * output * mean(A * output)", note="output * mean(d * output)"),
         ), family="xhat", affects=GRADIENT, tells=f"{_WEIGHT} and a bias that is not 0"),
    Slip(key="x_for_xhat", gives="taking the input for the normalized values", slipped="sum(grad_output * x)",
         instead="takes the normalized ones there", right=_RIGHT_WEIGHT,
         changes=_rules("sum(A * normalized, rest) -> sum(A * x, rest)"), family="xhat", affects=_PARAMETERS,
         tells="a variance far from 1, or a mean far from 0"),
    Slip(key="c_for_xhat", gives="taking the centered values for the normalized ones",
         slipped="sum(grad_output * centered)", instead="takes the normalized ones there", right=_RIGHT_WEIGHT,
         changes=_rules("sum(A * normalized, rest) -> sum(A * centered, rest)"), family="xhat", affects=_PARAMETERS,
         tells=_SCALE),
    Slip(key="parameters_times_weight", gives="multiplying the gradients of weight and bias by the weight",
         slipped="sum(d * normalized) with d = grad_output * weight", instead="takes grad_output itself there",
         right=f"{_RIGHT_WEIGHT} and sum(grad_output)", changes=_parameters("A", "A * weight"), family="times",
         affects=_PARAMETERS, tells=_WEIGHT),
    Slip(key="mean_for_sum", gives="a mean in the place of the sum", slipped="a mean over all samples",
         instead="adds up what flows to a parameter or an element",
         right="sum(grad_output * normalized), sum(grad_output)",
         changes=(
             *_parameters("sum(A, rest)", "mean(A, rest)"),
             _rules("grad_output -> grad_output / batch_size"),
         ), family="averaged", affects=GRADIENT, tells="another number of samples"),
    Slip(key="swapped", gives="exchanging the gradients of weight and bias",
         slipped="sum(grad_output) for the weight", instead="gives the weight the one with the normalized values",
         right=_RIGHT_WEIGHT,
         changes=(
             Change(report={"grad_weight": "grad_bias", "grad_bias": "grad_weight"}),
         ), family="swapped", affects=_PARAMETERS, tells="a grad_output that is not constant"),
    Slip(key="accumulated_twice", gives="adding the gradient up twice", slipped="2 * gradient",
         instead="has it once", right="the gradient of one backward pass",
         changes=tuple(
             Change(report={name: f"2 * {name}" for name, twice in zip(names, each, strict=True) if twice})
             for names in [("grad_input", "grad_weight", "grad_bias")]
             for each in product((True, False), repeat=3) if any(each)
         ), family="accumulated", affects=GRADIENT, tells="gradients that are not 0"),
)  # fmt: skip
