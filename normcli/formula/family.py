"""The lines of the family, and what options change in them.

The formula is that of Ioffe and Szegedy (2015, arXiv:1502.03167, algorithm 1) over different axes; RMSNorm
(Zhang and Sennrich 2019, arXiv:1910.07467) leaves the mean out. ``n`` elements share a statistic, ``N`` samples
share a channel's running statistics, ``m`` is the weight of the new batch.
"""

from __future__ import annotations

from functools import cache

from normcli.formula.language import Lines, lines
from normcli.formula.rewrite import rewritten

CENTERED = """
    mean = sum(x) / n
    centered = x - mean
    var = sum(centered^2) / n
    beside var_unbiased = var * n / (n - 1)
    rstd = 1 / sqrt(var + eps)
    normalized = centered * rstd
    output = normalized * weight + bias
"""
RMS = """
    mean_square = sum(x^2) / n
    rstd = 1 / sqrt(mean_square + eps)
    normalized = x * rstd
    output = normalized * weight
"""
RUNNING = """
    running_mean = (1 - m) * running_mean + m * batch_mean
    running_var = (1 - m) * running_var + m * batch_var
"""

# What options make of the lines: a value alone replaces that of the line, a whole line the line.
DDOF_1 = {
    "var": "var_unbiased = sum(centered^2) / (n - 1)",
    "var_unbiased": "beside var = var_unbiased * (n - 1) / n",
    "rstd": "1 / sqrt(var_unbiased + eps)",
}
EVAL = {"mean": "running_mean", "var": "running_var"}
NO_AFFINE = {"output": "normalized"}
OPTIONS = {"eval": EVAL, "ddof": DDOF_1, "no_affine": NO_AFFINE}

# The same as rules, for what stands in the lines of several kinds. Gemma's RMSNorm has its weights centred on 0 and
# adds 1 to them; Llama's rounds the normalized values to the dtype of the input before the weight multiplies
# (huggingface/transformers:models/gemma/modeling_gemma.py, models/llama/modeling_llama.py).
WEIGHT_OFFSET = "A * weight -> A * (1 + weight)"
CAST_BEFORE = "A * weight -> {dtype}(A) * weight"

# Batch renormalization (Ioffe 2017, arXiv:1702.03275, algorithm 1): r and d take the batch's statistics to the running
# ones, and are constants in the backward pass. eps is in the batch's deviation alone, as in TensorFlow
# (tensorflow/tensorflow:tensorflow/python/keras/layers/normalization.py, _renorm_correction_and_moments).
RENORM = (
    """rstd = 1 / R -> rstd = 1 / R;
    r = stop(clip(R / sqrt(running_var), 1 / {rmax}, {rmax}));
    d = stop(clip((mean - running_mean) / sqrt(running_var), -{dmax}, {dmax}))""",
    "normalized * weight -> (normalized * r + d) * weight",
    "output = normalized -> output = normalized * r + d",
)

# The same forward pass in the stages of a course, and what the options make of these.
COURSES = {
    # Frederik Kratzert, Understanding the backward pass through Batch Normalization Layer (2016), for cs231n.
    "kratzert": (
        """
    mu = sum(x) / n
    xmu = x - mu
    sq = xmu^2
    var = sum(sq) / n
    sqrtvar = sqrt(var + eps)
    ivar = 1 / sqrtvar
    xhat = xmu * ivar
    gammax = xhat * weight
    output = gammax + bias
""",
        {
            "eval": {"mu": "running_mean", "var": "running_var"},
            "ddof": {"var": "sum(sq) / (n - 1)"},
            "no_affine": {"gammax": "xhat", "output": "gammax"},
        },
    ),
}

_NOT_GIVEN = (("weight", "A * weight -> A"), ("weight", "A * (1 + weight) -> A"), ("bias", "A + bias -> A"))


@cache
def used(program: Lines, given: frozenset[str]) -> Lines:
    """The lines without the weight and the bias that nobody gave.

    >>> from normcli.formula.spelled import spelled
    >>> spelled(used(lines(RMS), frozenset())[-1].value)
    'normalized'
    """
    for name, rule in _NOT_GIVEN:
        if name not in given:
            program = rewritten(program, rule) or program
    return program


def running(var: str, *, over_samples: bool) -> Lines:
    """The lines of the running update, which takes ``var`` of the batch.

    Over several samples the statistics are averaged first, as torch's InstanceNorm does
    (aten/src/ATen/native/Normalization.cpp, instance_norm).

    >>> [line.name for line in running("var", over_samples=False)]
    ['batch_mean', 'batch_var', 'running_mean', 'running_var']
    """
    taken = {"batch_mean": "mean", "batch_var": var}
    where = [f"where {n} = sum({v}, samples) / N" if over_samples else f"where {n} = {v}" for n, v in taken.items()]
    return lines("\n".join(where) + RUNNING)
