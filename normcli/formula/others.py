"""The lines of the kinds beyond the family, and what options and libraries change in them; kinds.md of their sources.

``n`` elements are taken together, over the usual axes where a sum names no others.
"""

from __future__ import annotations

from collections.abc import Mapping

LP = """
    size = sum(abs(x)^p)^(1 / p)
    output = x / larger(size, eps)
"""
LP_1 = {"size": "sum(abs(x))"}
LP_2 = {"size": "sqrt(sum(x^2))"}
LP_LARGEST = {"size": "max(abs(x))"}
FLOOR = {"output": "x / larger(size, eps)"}
INSIDE = {"size": "sqrt(sum(x^2) + eps)", "output": "x / size"}
INSIDE_FLOOR = {"size": "sqrt(larger(sum(x^2), eps))", "output": "x / size"}
INSIDE_SQUARED_FLOOR = {"size": "sqrt(larger(sum(x^2), eps^2))", "output": "x / size"}
ADDED = {"output": "x / (size + eps)"}

ZSCORE = """
    mean = sum(x) / n
    centered = x - mean
    var = sum(centered^2) / n
    std = sqrt(var)
    output = centered / std
"""
STD_UNBIASED = {"var": "var_unbiased = sum(centered^2) / (n - 1)", "std": "sqrt(var_unbiased)"}
STD_NOT_0 = {"output": "centered / (std + equal(std, 0))"}

MINMAX = """
    low = min(x)
    high = max(x)
    span = high - low
    output = (x - low) / (span + equal(span, 0))
"""
SPAN_AS_IT_IS = {"output": "(x - low) / span"}

SOFTMAX = """
    top = max(x)
    exponential = exp(x - top)
    total = sum(exponential)
    output = exponential / total
"""
LOGSOFTMAX = """
    top = max(x)
    shifted = x - top
    total = sum(exp(shifted))
    output = shifted - log(total)
"""
PIXEL = """
    mean_square = sum(x^2) / n
    rstd = 1 / sqrt(mean_square + eps)
    output = x * rstd
"""
FRN = """
    mean_square = sum(x^2) / n
    rstd = 1 / sqrt(mean_square + eps)
    normalized = x * rstd
    affine = normalized * weight + bias
    output = larger(affine, tau)
"""
GRN = """
    gx = sqrt(sum(x^2))
    mean_gx = mean(gx, channels)
    nx = gx / (mean_gx + eps)
    output = x + (x * nx) * weight + bias
"""
LRN = """
    near = window(x^2, channels)
    spread = k + alpha / size * near
    output = x / spread^beta
"""
ALPHA_WHOLE = {"spread": "k + alpha * near"}

WEIGHT = """
    size = sqrt(sum(x^2))
    normalized = x / size
    output = normalized * weight
"""
WEIGHT_STD = """
    mean = sum(x) / n
    centered = x - mean
    var_unbiased = sum(centered^2) / (n - 1)
    std = sqrt(var_unbiased)
    output = centered / (std + eps)
"""
STD_BIASED_INSIDE: Mapping[str, str] = {
    "var_unbiased": "var = sum(centered^2) / n",
    "std": "sqrt(var + eps)",
    "output": "centered / std",
}

# A step of the power iteration, of the number i after that of the number j, and what comes of the last one.
POWER_STEP = """
    p_{i} = sum(x * u_{j}, rows)
    p_size_{i} = norm(p_{i}, columns)
    v_{i} = p_{i} / larger(p_size_{i}, eps)
    q_{i} = sum(x * v_{i}, columns)
    q_size_{i} = norm(q_{i}, rows)
    u_{i} = q_{i} / larger(q_size_{i}, eps)
"""
SPECTRAL = """
    product = sum(x * stop(v_last), columns)
    sigma = sum(stop(u_last) * product, rows)
    output = x / sigma
"""
