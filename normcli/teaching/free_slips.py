"""The slips in formulas over any axes: rules for their lines, the commonest first."""

from __future__ import annotations

# Rules for lines, and what they are: "Your numbers are what ... gives".
RULES = (
    ("no_eps", "A + eps -> A", "leaving eps out"),
    ("no_eps", "larger(A, eps) -> A", "leaving eps out"),
    ("eps_outside", "sqrt(A + eps) -> sqrt(A) + eps", "eps outside the root"),
    ("eps_inside", "sqrt(A) + eps -> sqrt(A + eps)", "eps inside the root"),
    ("eps_added", "larger(A, eps) -> A + eps", "eps added instead of a floor"),
    ("eps_floor", "A + eps -> larger(A, eps)", "eps as a floor instead of added"),
    ("mean_for_sum", "sum(A) -> mean(A)", "the mean instead of the sum"),
    ("sum_for_mean", "sum(A^2) / n -> sum(A^2)", "the sum instead of the mean"),
    ("ddof1", "sum(A^2) / n -> sum(A^2) / (n - 1)", "n - 1 instead of n"),
    ("ddof1", "mean((A - M)^2) -> sum((A - M)^2) / (n - 1)", "n - 1 instead of n"),
    ("ddof0", "sum(A^2) / (n - 1) -> sum(A^2) / n", "n instead of n - 1"),
    ("no_sqrt", "sqrt(A) -> A", "leaving the root out"),
    ("no_abs", "abs(A) -> A", "leaving the sizes out"),
    ("no_log", "log(A) -> A", "leaving the logarithm out"),
    ("no_weight", "A * weight -> A", "leaving the weight out"),
    ("no_bias", "A + bias -> A", "leaving the bias out"),
    ("no_threshold", "larger(A, tau) -> A", "leaving the threshold out"),
    ("no_power", "A^beta -> A", "leaving the power out"),
    ("alpha_whole", "alpha / size -> alpha", "alpha not divided by the size"),
    ("no_mean_of_lengths", "A / (mean_gx + eps) -> A", "lengths that are not divided by their mean"),
    ("no_input_added", "x + x * nx * A -> x * nx * A", "leaving out the input that is added"),
    ("not_centered", "x - mean -> x", "leaving the mean in"),
    ("upside_down", "A - B -> B - A", "a difference the other way round"),
)
