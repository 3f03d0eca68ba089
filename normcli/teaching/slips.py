"""The known slips: what a wrong answer usually is, as data.

A slip is a row: a key, words and formulas for people, and what it changes in a calculation (``Change``): rules on
the lines of the formula, options, axes, or what is written down for a quantity.

Sources of the rows: the frameworks' issue trackers and the textbooks in which each was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations

from normcli.digits import short
from normcli.planning.conventions import CONVENTIONS
from normcli.planning.kinds import STATE_ARRAYS
from normcli.planning.layout import by_virtual_batch
from normcli.planning.plan import Plan
from normcli.teaching.backward import BACKWARD
from normcli.teaching.other_axes import axes_words
from normcli.teaching.slip import EVERYTHING, GRADIENT, NORMALIZED, RUNNING, SIZES, STATISTICS, Slip
from normcli.teaching.solved import solved_eps, solved_momentum
from normcli.teaching.work import Change, Work
from normcli.words import count


def _eps_other(work: Work) -> Iterator[Change]:
    known = {eps for convention in CONVENTIONS.values() for eps in convention.eps.values() if eps}
    for eps in sorted(known | {1e-4, 1e-7, 1e-8, 1e-12, 2.0**-23, 2.0**-52} | solved_eps(work), reverse=True):
        yield Change(options={"eps": eps}, note=short(eps))


def _momentum_other(work: Work) -> Iterator[Change]:
    known = {convention.momentum for convention in CONVENTIONS.values()} | {0.001}
    given = work.plan.momentum
    for momentum in sorted(known | solved_momentum(work)):
        if given is None or momentum != 1 - given:  # which is a slip of its own
            yield Change(options={"momentum": momentum}, note=short(momentum))


def _rounded_steps(work: Work) -> Iterator[Change]:
    for decimals in (4, 3, 2, 1):
        for written in ("rstd = 1 / D -> std = D; beside rstd = 1 / std", ""):  # some write down the root, some rstd
            yield Change(written, decimals=decimals, note=str(decimals))


_HALVES = {
    "the input": ("x",),
    "the parameters": STATE_ARRAYS,
    "the input and the parameters": ("x", *STATE_ARRAYS),
    "the output": ("normalized", "output"),
    "input, parameters and output": ("x", *STATE_ARRAYS, "normalized", "output"),
}


def _half_precision(work: Work) -> Iterator[Change]:
    for dtype in sorted({"float16", "bfloat16"} - {work.plan.dtype}):
        for what, names in _HALVES.items():
            yield Change(dtypes=dict.fromkeys(names, dtype), note=f"{what} to {dtype}")


def _plus_one(*, offset: int) -> Callable[[Work], Iterator[Change]]:
    """1 added to the weight, of layers that add so much to it by themselves."""

    def changes(work: Work) -> Iterator[Change]:
        if work.plan.weight_offset == offset:
            yield Change(given={"weight": "1 + weight"})

    return changes


def _cast_before(work: Work) -> Iterator[Change]:
    if not work.plan.cast and work.plan.dtype in ("float16", "bfloat16"):
        yield Change(options={"cast": work.plan.dtype}, note=work.plan.dtype)


def _cast_after(work: Work) -> Iterator[Change]:
    if work.plan.cast:
        yield Change(options={"cast": None}, note=work.plan.cast)


def _ranks_apart(work: Work) -> Iterator[Change]:
    sizes = work.plan.ranks or ()
    if len(set(sizes)) == 1:
        axis = work.plan.layout.channel_axis or 0
        yield Change(layout=by_virtual_batch(work.plan.shape, channel_axis=axis, samples=sizes[0]))
    elif sizes:
        yield Change("normalized = A -> normalized = (x - rank_mean) / sqrt(rank_var + eps)")


_NORMALIZED = "(x - mean) / sqrt(var + eps)"
_RSTD = "1 / sqrt(var + eps)"
_OUTPUT = "normalized * weight + bias"
_OFFSET = "normalized * (1 + weight) + bias"
_CAST = frozenset({"output", "grad_weight"})
_UPDATE = "(1 - m) * old + m * batch"
_AXES = "takes one mean over its own axes"
_RENORM = "normalized * r + d"
_CLIPPED = "{0} = stop(clip(A, B, C)) -> {0} = stop(A)"
_CORRECTED = GRADIENT | {"output"}
_OLD = "running statistics far from the batch's"
_VIRTUAL = "mean over {virtual}"
_MERGED = "sum(rank_n * rank_mean) / n"
_VARIANCE = "a smaller variance, or more decimals"
_WEIGHT = "a weight that is not 1 and a bias that is not 0"

FORWARD: tuple[Slip, ...] = (
    Slip(key="ddof1", gives="the unbiased variance", slipped="sum(centered^2) / (n - 1)",
         instead="normalizes with the biased one", right="sum(centered^2) / n",
         changes=(
             Change(options={"ddof": 1}, report={"var": "var_unbiased"}),
             Change(options={"ddof": 1}),
             Change(report={"var": "sum(S) / n -> sum(S) / (n - 1)"}),
             Change(report={"rstd": "var -> var_unbiased"}),
         ), family="divisor", affects=NORMALIZED | {"var"}, tells="a smaller n"),
    Slip(key="ddof0", gives="the biased variance", slipped="sum(centered^2) / n",
         instead="was asked for the unbiased one", right="sum(centered^2) / (n - 1)",
         changes=(
             Change(options={"ddof": 0}, report={"var_unbiased": "var"}),
             Change(options={"ddof": 0}),
             Change(report={"var_unbiased": "sum(S) / (n - 1) -> sum(S) / n"}),
             Change(report={"rstd": "var_unbiased -> var"}),
         ), family="divisor", affects=NORMALIZED | {"var_unbiased"}, tells="a smaller n"),
    Slip(key="eps_omitted", gives="leaving eps out", slipped="1 / sqrt(var)", instead="adds eps to the variance",
         right=_RSTD,
         changes=(Change(options={"eps": 0.0}), Change("A * rstd -> A / (1 / rstd)", options={"eps": 0.0})),
         family="eps", tells=_VARIANCE),
    Slip(key="eps_outside", gives="eps outside the root", slipped="1 / (sqrt(var) + eps)",
         instead="adds eps to the variance, inside the root", right=_RSTD, changes="sqrt(V + eps) -> sqrt(V) + eps",
         family="eps", tells=_VARIANCE),
    Slip(key="eps_other", gives="another eps, {note},", slipped="1 / sqrt(var + another eps)",
         instead="has eps {eps} here", right="1 / sqrt(var + {eps})", changes=_eps_other, family="eps",
         tells=_VARIANCE),
    Slip(key="eps_floor", gives="eps as the least variance", slipped="1 / sqrt(max(var, eps))",
         instead="adds eps to every variance", right=_RSTD, changes="V + eps -> larger(V, eps)", family="eps",
         tells=_VARIANCE, rare=True),
    Slip(key="eps_squared", gives="eps squared", slipped="1 / sqrt(var + eps^2)", instead="adds eps itself",
         right=_RSTD, changes="V + eps -> V + eps^2", family="eps", tells=_VARIANCE, rare=True),
    Slip(key="eps_last", gives="eps added after the division", slipped="centered / sqrt(var) + eps",
         instead="adds eps to the variance", right=_NORMALIZED, changes="V + eps -> V; C * rstd -> C * rstd + eps",
         family="eps", affects=frozenset({"normalized", "output"}), tells=_VARIANCE, rare=True),
    Slip(key="var_not_std", gives="dividing by the variance, not by its root,", slipped="centered / (var + eps)",
         instead="divides by the root", right="centered / sqrt(var + eps)", changes="sqrt(V) -> V", family="eps",
         tells="a variance far from 1"),
    Slip(key="sqrt_of_std", gives="the root taken twice", slipped="centered / sqrt(std + eps)", instead="takes it once",
         right="centered / sqrt(var + eps)", changes="sqrt(V + eps) -> sqrt(sqrt(V) + eps)", family="eps",
         tells="a variance far from 1", rare=True),
    Slip(key="only_centered", gives="subtracting the mean, and no more,", slipped="x - mean",
         instead="divides by the root of the variance too", right=_NORMALIZED, changes="sqrt(V) -> 1",
         family="eps", tells="a variance far from 1"),
    Slip(key="rms_not_centered", gives="leaving the mean in, as RMSNorm does,", slipped="x / sqrt(mean(x^2) + eps)",
         instead="subtracts the mean first", right=_NORMALIZED, changes="sum(x) / n -> 0", family="center",
         affects=NORMALIZED | {"var", "mean_square"}, tells="a mean far from 0"),
    Slip(key="centered_not_rms", gives="subtracting the mean, as LayerNorm does,", slipped=_NORMALIZED,
         instead="subtracts no mean", right="x / sqrt(mean(x^2) + eps)",
         changes="mean_square = sum(x^2) / n -> centered = x - mean(x); mean_square = sum(centered^2) / n; "
                 "x * rstd -> centered * rstd",
         family="center", affects=NORMALIZED | {"mean_square"}, tells="a mean far from 0"),
    Slip(key="axes_layer", gives="one mean for each sample, over {note},", slipped="mean over {note}", instead=_AXES,
         right="mean over {axes}", axes="layer", family="axes", affects=EVERYTHING, tells=SIZES),
    Slip(key="axes_batch", gives="one mean for each channel, over {note},", slipped="mean over {note}", instead=_AXES,
         right="mean over {axes}", axes="batch", family="axes", affects=EVERYTHING, tells=SIZES),
    Slip(key="axes_instance", gives="one mean for each sample and channel, over {note},", slipped="mean over {note}",
         instead=_AXES, right="mean over {axes}", axes="instance", family="axes", affects=EVERYTHING, tells=SIZES),
    Slip(key="axes_group", gives="one mean for each sample and group, {note},", slipped="mean over a group of channels",
         instead=_AXES, right="mean over {axes}", axes="group", family="axes", affects=EVERYTHING, tells=SIZES),
    Slip(key="axes_global", gives="one mean for the whole tensor", slipped="mean over all axes", instead=_AXES,
         right="mean over {axes}", axes="global", family="axes", affects=EVERYTHING, tells="more than one sample"),
    Slip(key="axes_per_position", gives="one mean for each position, over the samples alone,",
         slipped="mean over axis 0", instead=_AXES, right="mean over {axes}", axes="position", family="axes",
         affects=EVERYTHING, tells=SIZES, rare=True),
    Slip(key="channel_last", gives="taking {note} for that of the channels", slipped="channels on {note}",
         instead="was told that they are on {channel}", right="channels on {channel}", axes="channel_last",
         family="axes", affects=EVERYTHING, tells=SIZES),
    Slip(key="group_interleaved", gives="dealing the channels to the groups the other way, {note},", slipped="{note}",
         instead="takes them the one way", right="{grouping}", conventional=True, axes="interleaved", family="axes",
         affects=EVERYTHING, tells="more channels in each group"),
    Slip(key="groups_other", gives="another number of groups, {note},", slipped="{note}",
         instead="splits the channels as it is told", right="{groups}", axes="other_groups", family="axes",
         affects=EVERYTHING, tells=SIZES, rare=True),
    Slip(key="groups_swapped", gives="taking the number of groups for that of channels per group", slipped="{note}",
         instead="splits the channels as it is told", right="{groups}", axes="swapped_groups", family="axes",
         affects=EVERYTHING, tells=SIZES),
    Slip(key="virtual_omitted", gives="taking the statistics of all samples together", slipped="mean over all samples",
         instead="takes those of each virtual batch", right=_VIRTUAL, axes="whole_batch", family="axes",
         affects=EVERYTHING, tells="virtual batches that differ more"),
    Slip(key="virtual_dealt", gives="dealing the samples to the virtual batches in turn, as TensorFlow does,",
         slipped="sample i in virtual batch i mod V", instead="takes samples that follow one another", right=_VIRTUAL,
         axes="virtual_dealt", family="axes", affects=EVERYTHING, tells="more samples"),
    Slip(key="virtual_other", gives="virtual batches of {note}", slipped="mean over {note}",
         instead="was given another size", right=_VIRTUAL, axes="virtual_other", family="axes", affects=EVERYTHING,
         tells="more samples", rare=True),
    Slip(key="ranks_apart", gives="taking each rank's own statistics, not synchronized,",
         slipped="(x - rank_mean) / sqrt(rank_var + eps)", instead="takes those of all ranks together", right=_MERGED,
         changes=_ranks_apart, family="axes", tells="ranks that differ more"),
    Slip(key="ranks_means", gives="the mean of the ranks' means", slipped="sum(rank_mean) / ranks",
         instead="merges them by their counts", right=_MERGED, changes="sum(x) / n -> sum(rank_mean / rank_n) / ranks",
         family="merged", affects=EVERYTHING, tells="ranks of sizes that differ more"),
    Slip(key="ranks_vars", gives="the mean of the ranks' variances", slipped="{note}",
         instead="adds how far apart the ranks' means lie", right="sum(rank_n * (rank_var + (rank_mean - mean)^2)) / n",
         changes=(
             Change("sum(centered^2) / D -> sum(rank_var / rank_n) * n / ranks / D", note="sum(rank_var) / ranks"),
             Change("sum(centered^2) / D -> sum(rank_var) / D", note="sum(rank_n * rank_var) / n"),
         ), family="merged_var", affects=EVERYTHING - {"mean", "running_mean"}, tells="means further apart"),
    Slip(key="renorm_omitted", gives="leaving out r and d", slipped="normalized",
         instead="corrects with them, for --renorm", right=_RENORM, changes=Change(options={"renorm": False}),
         family="renorm", affects=_CORRECTED, tells=_OLD),
    Slip(key="renorm_unclipped", gives="not clipping {note}", slipped="no bounds",
         instead="keeps r and d within their bounds", right="clip(r, 1 / rmax, rmax), clip(d, -dmax, dmax)",
         changes=(
             Change(f"{_CLIPPED.format('r')}; {_CLIPPED.format('d')}", note="r and d"),
             Change(_CLIPPED.format("r"), note="r"),
             Change(_CLIPPED.format("d"), note="d"),
         ), family="renorm", affects=_CORRECTED | {"r", "d"}, tells=_OLD),
    Slip(key="renorm_eps", gives="eps in the running deviation too", slipped="sqrt(running_var + eps)",
         instead="has it in the batch's alone", right="sqrt(running_var)",
         changes="sqrt(running_var) -> sqrt(running_var + eps)", family="renorm", affects=_CORRECTED | {"r", "d"},
         tells="a smaller running variance, or more decimals"),
    Slip(key="renorm_var", gives="taking the running variance for a deviation", slipped="sqrt(var + eps) / running_var",
         instead="takes its root", right="sqrt(running_var)", changes="sqrt(running_var) -> running_var",
         family="renorm", affects=_CORRECTED | {"r", "d"}, tells="a running variance far from 1"),
    Slip(key="renorm_d_reversed", gives="d with its sign turned round", slipped="(running_mean - mean) / running std",
         instead="takes the old mean from the new", right="(mean - running_mean) / running std",
         changes="mean - running_mean -> running_mean - mean", family="renorm", affects=_CORRECTED | {"d"}, tells=_OLD),
    Slip(key="renorm_flowing", gives="letting gradients flow through r and d", slipped="r and d of the input",
         instead="takes them for constants", right="stop(r), stop(d)", changes="stop(A) -> A", family="renorm",
         affects=GRADIENT, tells=_OLD),
    Slip(key="weight_omitted", gives="leaving the weight out", slipped="normalized + bias", instead="multiplies by it",
         right=_OUTPUT, changes="A * weight -> A", family="affine", affects=frozenset({"output"}), tells=_WEIGHT),
    Slip(key="bias_omitted", gives="leaving the bias out", slipped="normalized * weight", instead="adds it",
         right=_OUTPUT, changes="A + bias -> A", family="affine", affects=frozenset({"output"}), tells=_WEIGHT),
    Slip(key="affine_omitted", gives="leaving weight and bias out", slipped="normalized",
         instead="multiplies by the one and adds the other", right=_OUTPUT, changes="A * weight + bias -> A",
         family="affine", affects=frozenset({"output"}), tells=_WEIGHT),
    Slip(key="affine_swapped", gives="exchanging weight and bias", slipped="normalized * bias + weight",
         instead="multiplies by the weight and adds the bias", right=_OUTPUT,
         changes=Change(given={"weight": "bias", "bias": "weight"}), family="affine", affects=GRADIENT | {"output"},
         tells=_WEIGHT),
    Slip(key="weight_plus_one", gives="adding 1 to the weight, as Gemma does,",
         slipped="normalized * (1 + weight) + bias", instead="multiplies by the weight itself", right=_OUTPUT,
         changes=_plus_one(offset=0), family="affine", affects=GRADIENT | {"output"}, tells=_WEIGHT),
    Slip(key="offset_omitted", gives="multiplying by the weight itself, as Llama does,",
         slipped="normalized * weight + bias", instead="adds 1 to it first", right=_OFFSET,
         changes=Change(options={"weight_offset": 0}), family="affine", affects=GRADIENT | {"output"}, tells=_WEIGHT),
    Slip(key="offset_twice", gives="adding 1 to the weight twice", slipped="normalized * (2 + weight) + bias",
         instead="adds it once, and not again to a weight that was saved with it", right=_OFFSET,
         changes=_plus_one(offset=1), family="affine", affects=GRADIENT | {"output"}, tells=_WEIGHT),
    Slip(key="cast_before",
         gives="rounding the normalized values to {note} before the weight multiplies, as Llama does,",
         slipped="{note}(normalized) * weight", instead="rounds only the output, as Gemma does",
         right="{note}(normalized * weight)", changes=_cast_before, family="cast", affects=_CAST,
         tells="weights of many digits", late=True),
    Slip(key="cast_after", gives="rounding only the output to {note}, as Gemma does,",
         slipped="{note}(normalized * weight)",
         instead="was told to round the normalized values before the weight multiplies, as Llama does",
         right="{note}(normalized) * weight", changes=_cast_after, family="cast", affects=_CAST,
         tells="weights of many digits", late=True),
    Slip(key="bias_inside", gives="adding the bias before the weight multiplies",
         slipped="(normalized + bias) * weight", instead="adds it afterwards", right=_OUTPUT,
         changes="A * weight + bias -> (A + bias) * weight", family="affine", affects=frozenset({"output"}),
         tells=_WEIGHT),
    Slip(key="bias_subtracted", gives="subtracting the bias", slipped="normalized * weight - bias", instead="adds it",
         right=_OUTPUT, changes="A + bias -> A - bias", family="affine", affects=frozenset({"output"}), tells=_WEIGHT,
         rare=True),
    Slip(key="affine_before", gives="applying weight and bias to the input", slipped="normalize(x * weight + bias)",
         instead="applies them to the normalized values", right=_OUTPUT,
         changes=(
             Change("A * weight + bias -> A", given={"x": "x * weight + bias"}),
             Change("output = A * weight -> output = A", given={"x": "x * weight"}),
             Change("normalized + bias -> normalized", given={"x": "x + bias"}),
         ), family="affine", affects=EVERYTHING, tells=_WEIGHT, rare=True),
    Slip(key="train_for_eval", gives="taking the statistics of this batch, as in training,",
         slipped="(x - mean) / sqrt(var + eps)", instead="in eval mode takes the running ones",
         right="(x - running_mean) / sqrt(running_var + eps)", changes=Change(options={"mode": "train"}), family="mode",
         affects=EVERYTHING, tells="running statistics far from the batch's"),
    Slip(key="eval_for_train", gives="taking the running statistics, as in eval mode,",
         slipped="(x - running_mean) / sqrt(running_var + eps)", instead="here takes those of the batch",
         right=_NORMALIZED, changes=Change(options={"mode": "eval", "track_running_stats": True}), family="mode",
         affects=EVERYTHING, tells="running statistics far from the batch's"),
    Slip(key="eval_with_updated", gives="taking the running statistics just updated with this batch",
         slipped="(x - running_mean) / sqrt(running_var + eps), after the update",
         instead="does not normalize a batch with what that batch has updated", right="{source}",
         changes=Change(options={"mode": "train"}, updated_first=True), family="mode", affects=EVERYTHING,
         tells="another momentum"),
    Slip(key="momentum_reversed", gives="momentum as the weight of the old value", slipped="m * old + (1 - m) * batch",
         instead="gives it to the new batch", right=_UPDATE, changes="(1 - m) * A + m * B -> m * A + (1 - m) * B",
         family="momentum", affects=RUNNING | NORMALIZED, tells="a momentum far from 0.5"),
    Slip(key="running_var_biased", gives="the biased variance in the running one", slipped="(1 - m) * old + m * var",
         instead="takes the unbiased one there", right="(1 - m) * old + m * var*n/(n-1)", conventional=True,
         changes=Change(options={"running_ddof": 0}), family="running_divisor", affects=RUNNING | NORMALIZED,
         tells="a smaller n"),
    Slip(key="running_var_unbiased", gives="the unbiased variance in the running one",
         slipped="(1 - m) * old + m * var*n/(n-1)", instead="takes the biased one there",
         right="(1 - m) * old + m * var", conventional=True, changes=Change(options={"running_ddof": 1}),
         family="running_divisor", affects=RUNNING | NORMALIZED, tells="a smaller n"),
    Slip(key="running_var_init_zero", gives="a running variance that starts from 0", slipped="(1 - m) * 0 + m * batch",
         instead="starts from the variance given, or 1", right=_UPDATE, changes=Change(given={"running_var": "0"}),
         family="initial", affects=RUNNING | NORMALIZED, tells="several batches"),
    Slip(key="running_std", gives="the standard deviation in the running variance",
         slipped="(1 - m) * old + m * sqrt(var)", instead="keeps the variance", right=_UPDATE,
         changes="A * batch_var -> A * sqrt(batch_var)", family="kept", affects=RUNNING | NORMALIZED,
         tells="a variance far from 1"),
    Slip(key="running_no_old", gives="taking the batch's values alone", slipped="batch",
         instead="mixes them with the old ones", right=_UPDATE, changes=Change(options={"momentum": 1.0}),
         family="momentum", affects=RUNNING | NORMALIZED, tells="old values far from the batch's"),
    Slip(key="updates_off_by_one", gives="making {note} of the running statistics", slipped="{note}",
         instead="updates them once for each batch", right=_UPDATE,
         changes=(Change(updates=0, note="no update"), Change(updates=2, note="2 updates")), family="updates",
         affects=RUNNING, tells="another momentum"),
    Slip(key="running_swapped", gives="exchanging running mean and variance",
         slipped="(x - running_var) / sqrt(running_mean + eps)",
         instead="subtracts the mean and divides by the root of the variance",
         right="(x - running_mean) / sqrt(running_var + eps)",
         changes=(
             Change("mean = running_mean -> mean = running_var; var = running_var -> var = running_mean",
                    report={"running_mean": "running_var", "running_var": "running_mean"}),
             Change(report={"running_mean": "running_var", "running_var": "running_mean"}),
         ), family="swap", affects=RUNNING | NORMALIZED, tells="a variance far from the mean"),
    Slip(key="momentum_cumulative", gives="the cumulative average", slipped="old + (batch - old) / (k + 1)",
         instead="has momentum {momentum} here", right=_UPDATE, changes="m -> 1 / (k + 1)", family="momentum",
         affects=RUNNING, tells="another number of batches"),
    Slip(key="momentum_other", gives="another momentum, {note},", slipped="(1 - m) * old + m * batch, with another m",
         instead="has momentum {momentum} here", right=_UPDATE, changes=_momentum_other, family="momentum",
         affects=RUNNING, tells="old values far from the batch's", rare=True),
    Slip(key="sign_flipped", gives="flipping the sign", slipped="(mean - x) / sqrt(var + eps)",
         instead="subtracts the mean from x", right=_NORMALIZED,
         changes=(
             Change(report={"normalized": "-normalized", "output": "-output"}),
             Change("A + bias -> -A + bias", report={"normalized": "-normalized"}),
         ), family="sign", affects=frozenset({"normalized", "output"}),
         tells="values that are not symmetric about the mean"),
    Slip(key="std_for_var", gives="the standard deviation in place of the variance",
         slipped="sqrt(sum(centered^2) / n)", instead="has the variance itself there", right="sum(centered^2) / n",
         changes=Change(report={"var": "sqrt(var)"}), family=None, affects=frozenset({"var"}),
         tells="a variance far from 1"),
    Slip(key="std_for_rstd", gives="the standard deviation in place of its reciprocal", slipped="sqrt(var + eps)",
         instead="multiplies by the reciprocal", right=_RSTD,
         changes=(Change(report={"rstd": "1 / rstd"}), Change(backward="grad_input = A -> grad_input = A / rstd^2")),
         family=None, affects=frozenset({"rstd", "grad_input"}), tells="a variance far from 1"),
    Slip(key="untouched", gives="the input itself", slipped="x", itself=True,
         instead="subtracts the mean and divides by the root of the variance", right=_NORMALIZED,
         changes=Change(report={"normalized": "x", "output": "x"}), family=None,
         affects=frozenset({"normalized", "output"}), tells="an input that is not normalized already"),
    Slip(key="half_precision", gives="rounding {note}", slipped="16 bits on the way",
         instead="is worked out here without rounding on the way", right="full precision until the end",
         changes=_half_precision, family=None, affects=EVERYTHING, tells="more decimals", rare=True, late=True),
    Slip(key="one_pass", gives="the variance in one pass, in low precision,", slipped="mean(x^2) - mean(x)^2",
         instead="sums the squares of the centered values", right="sum(centered^2) / n",
         changes=(
             Change("sum(centered^2) / D -> (mean(x^2) - mean(x)^2) * n / D", numbers="float32"),
             Change("sum(centered^2) / D -> larger(mean(x^2) - mean(x)^2, 0) * n / D", numbers="float32"),
         ), family=None, affects=NORMALIZED | {"var", "var_unbiased", "running_var"}, tells="a mean far from 0"),
    Slip(key="rounded_steps", gives="rounding the intermediate steps to {note} decimals",
         slipped="each step rounded to {note} decimals", instead="rounds only the last",
         right="full precision until the end", changes=_rounded_steps, crude=True, family=None,
         affects=STATISTICS | NORMALIZED, tells="more decimals in the intermediate steps"),
)  # fmt: skip

SLIPS = FORWARD + BACKWARD
KEYS: Mapping[str, Slip] = {slip.key: slip for slip in SLIPS}


def pairs(expected: frozenset[str]) -> Iterator[tuple[Slip, Slip]]:
    """Two slips at a time, of different families, both of which the expected quantities can show."""
    shown = [slip for slip in SLIPS if slip.family and not slip.rare and slip.affects & expected]
    if expected <= GRADIENT:  # for which each of many eps is tried
        shown.remove(KEYS["eps_other"])
    yield from ((a, b) for a, b in combinations(shown, 2) if a.family != b.family)


def formatted(text: str, note: str, settled: Plan) -> str:
    """A slip's words with the numbers of this calculation filled in.

    >>> from normcli.planning.plan import plan
    >>> formatted("{title} has eps {eps}, not {note}", "0.001", plan("layer", (1, 4), "float64", {}))
    'LayerNorm has eps 1e-05, not 0.001'
    """
    channel = settled.layout.channel_axis
    return text.format(
        title=settled.kind.title,
        note=note,
        eps=short(settled.eps),
        axes=axes_words(settled.layout.reported_axes) if settled.layout.reported_axes else "nothing",
        channel="no axis" if channel is None else f"axis {channel}",
        virtual=count(settled.virtual_batch or 0, "sample"),
        groups=count(settled.layout.groups or 1, "group"),
        grouping="c mod G" if settled.layout.is_interleaved else "consecutive",
        gradient=_gradient(settled),
        momentum="none" if settled.momentum is None else short(settled.momentum),
        source="(x - running_mean) / sqrt(running_var + eps)" if settled.source == "running" else _NORMALIZED,
    )


def _gradient(settled: Plan) -> str:
    """What flows to the input, in one line, as texts on backpropagation have it."""
    if settled.source == "running":
        return "rstd * d with d = grad_output * weight"
    mean = "mean(d) - " if settled.kind.centers else ""
    divisor = " * n / (n - 1)" if settled.ddof else ""
    return f"rstd * (d - {mean}normalized * mean(d * normalized){divisor}) with d = grad_output * weight"
