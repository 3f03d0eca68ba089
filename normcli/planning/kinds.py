"""What a kind is: a row each, which everything else reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from normcli.errors import InputError
from normcli.formula.extents import elementwise
from normcli.formula.family import CENTERED, COURSES, OPTIONS, RMS
from normcli.formula.language import Lines, lines
from normcli.planning.conventions import Profile
from normcli.planning.layout import Layout, Shape, by_channel, by_sample_and_channel, by_sample_and_group, trailing
from normcli.words import either, quoted


class Kind(NamedTuple):
    """A normalization: its lines, the options that mean something to it, how it looks at a tensor, and words for it."""

    name: str
    title: str  # its layer's name
    summary: str
    options: tuple[str, ...]
    text: str  # its lines
    layout: Callable[..., Layout]  # from the shape, and those of channel_axis, groups and normalized_shape it has
    needs: str = "one axis or more"  # of a shape
    least_rank: int = 1
    tracks: bool = False  # whether running statistics are kept unless it is said otherwise
    group_words: tuple[str, ...] = ()  # what the indices of a group of statistics count; rows where there are none
    each: str | None = None  # what has a mean of its own, in words
    examples: tuple[str, ...] = ()
    changes: Mapping[str, Mapping[str, str]] = OPTIONS  # of its lines, by options
    course: str | None = None  # whose stages the lines are
    profiles: Mapping[str, Profile] = {}  # of a kind beyond the family, by the libraries that have it
    numbers: Mapping[str, float] = {}  # the options that are numbers in its lines, with what they are by themselves
    sets: Mapping[str | None, Callable[[int, int], Shape]] = {}  # axes by name, from the rank and the channel axis
    tensors: Mapping[str, tuple[str, float]] = {}  # what may come with the input: its axes, and what it is by itself
    forms: Mapping[tuple[str, Any], Mapping[str, str]] = {}  # what the value of an option changes in its lines
    rounds: str = ""  # lines that come so many times before the others, with {i} and {j} = i - 1 in their names

    @property
    def program(self) -> Lines:
        """Its lines, whatever the options."""
        return lines(self.text)

    @property
    def statistics(self) -> tuple[str, ...]:
        """The names of its lines that have one value for each group of statistics.

        >>> KINDS["rms"].statistics
        ('mean_square', 'rstd')
        """
        return tuple(line.name for line in self.program if line.name not in elementwise(self.program))

    @property
    def centers(self) -> bool:
        """Whether a mean is subtracted; RMSNorm divides by the root mean square alone."""
        return "mean" in self.statistics

    @property
    def has_running_stats(self) -> bool:
        """Whether the kind can keep statistics from one batch to the next."""
        return "running_mean" in self.options


_SHARED = ("eps", "weight", "affine", "convention", "dtype")
_CENTERED = (*_SHARED, "bias", "ddof")
_OF_ELEMENTS = ("normalized_shape", "weight_offset", "cast")  # of the layers of language models
_RUNNING = (
    *_CENTERED, "mode", "momentum", "decay", "track_running_stats", "running_mean", "running_var",
    "num_batches_tracked", "running_ddof", "channel_axis",
)  # fmt: skip

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="batch",
            title="BatchNorm",
            summary="BatchNorm: one mean for each channel.",
            options=(*_RUNNING, "virtual_batch", "ranks", "renorm", "rmax", "dmax"),
            text=CENTERED,
            layout=by_channel,
            needs="(N, C) or more",
            least_rank=2,
            tracks=True,
            group_words=("channel",),
            each="each channel",
            examples=(
                "normcli batch '[[1,2,4,1],[6,3,2,4],[2,4,6,1]]' --trace",
                "normcli batch '[[1,2],[3,6],[5,4]]' --expect '[[-1.2247,-1.2247],[0,1.2247],[1.2247,0]]'",
                "normcli batch '[[1,2],[3,6],[5,4]]' --versus keras",
                "normcli batch x.npy --mode eval --running-mean '[0.3,0.3]' --running-var '[1.6,1]'",
                "normcli batch first.npy second.npy --momentum none --json",
            ),
        ),
        Kind(
            name="instance",
            title="InstanceNorm",
            summary="InstanceNorm: one mean for each sample and channel.",
            options=_RUNNING,
            text=CENTERED,
            layout=by_sample_and_channel,
            needs="(N, C, L), or (C, L) or more",
            least_rank=2,
            group_words=("sample", "channel"),
            each="each channel of each sample",
            examples=(
                "normcli instance '[[[1,2,3],[4,6,8]]]'",
                "normcli instance '[[[1,2,3],[4,6,8]]]' --expect '[[[-1.2247,0,1.2247],[-1.2247,0,1.2247]]]'",
                "normcli instance x.npy --channel-axis -1 -o y.npy",
                "normcli instance x.npy --element 0,1,2",
            ),
        ),
        Kind(
            name="layer",
            title="LayerNorm",
            summary="LayerNorm: one mean over the trailing axes.",
            options=(*_CENTERED, *_OF_ELEMENTS),
            text=CENTERED,
            layout=trailing,
            examples=(
                "normcli layer '[1,2,4,1]' --trace",
                "normcli layer '[1,2,4,1]' --expect '[-0.8165,0,1.6330,-0.8165]'",
                "normcli layer x.npy --normalized-shape 6,4,4 -o y.npy",
                "normcli batch '[[1,2],[3,5]]' --json | normcli layer -",
            ),
        ),
        Kind(
            name="group",
            title="GroupNorm",
            summary="GroupNorm: one mean for each group of channels.",
            options=(*_CENTERED, "groups", "channel_axis"),
            text=CENTERED,
            layout=by_sample_and_group,
            needs="(N, C) or more",
            least_rank=2,
            group_words=("sample", "group"),
            each="each sample and group of channels",
            examples=(
                "normcli group '[[1,2,3,4],[5,7,9,11]]' --groups 2",
                "normcli group '[[1,3,5,9]]' --groups 2 --expect '[[-1.0000,1.0000,-1.0000,1.0000]]'",
                "normcli group x.npy --groups 3 --trace",
                "normcli group x.npy --groups 4 --only output --json",
            ),
        ),
        Kind(
            name="rms",
            title="RMSNorm",
            summary="RMSNorm: the root mean square, no mean.",
            options=(*_SHARED, *_OF_ELEMENTS),
            text=RMS,
            layout=trailing,
            examples=(
                "normcli rms '[3,4]' --eps 0",
                "normcli rms '[3,4]' --expect '[0.8485,1.1314]'",
                "normcli rms x.npy --weight w.npy --dtype float16",
                "normcli rms '[[1,2],[3,4]]' --element 1,0",
            ),
        ),
    )
}


# What somebody has written; its lines are given with each calculation.
FORMULA = Kind(
    name="formula",
    title="Formula",
    summary="Your own formula.",
    options=("lines", "axes", "let", "dtype"),
    text="output = x",
    layout=by_channel,
    examples=(
        "normcli formula 'x / (sum(abs(x)) + eps)' '[[1,2,4,1]]' --axes 1 --let eps=1e-6",
        "normcli formula 'x / sum(x)' '[1,2,5]' --axes 0 --expect '[0.125,0.25,0.625]'",
        "normcli formula 'm = max(x); e = exp(x - m); y = e / sum(e)' '[1,2,4,1]' --axes 0 --grad-output ones",
        "normcli formula batch",
    ),
)

ALL = "all"  # the word for several of them side by side


def taught(kind: Kind, course: str) -> Kind:
    """The kind with its lines in the stages of a course; InputError where the course has another formula.

    >>> taught(KINDS["batch"], "kratzert").statistics
    ('mu', 'var', 'sqrtvar', 'ivar')
    """
    if course not in COURSES:
        raise InputError(f"--steps is {quoted(course)}; use {either(COURSES)}")
    if kind.text != CENTERED:
        raise InputError(f"the steps of {course} are those of BatchNorm's formula; {kind.title} has another")
    text, changes = COURSES[course]
    return kind._replace(text=text, changes=changes, course=course)


def layout_of(
    kind: str,
    shape: Shape,
    *,
    channel_axis: int | None = None,
    groups: int | None = None,
    normalized_shape: Shape | None = None,
    interleaved: bool = False,
) -> Layout:
    """The layout of a kind for a shape.

    >>> layout_of("batch", (2, 3, 4), channel_axis=1).axes
    (0, 2)
    """
    row = KINDS[kind]
    given = {"channel_axis": channel_axis, "groups": groups, "normalized_shape": normalized_shape}
    own: dict[str, object] = {name: value for name, value in given.items() if name in row.options}
    if "groups" in own:
        own["interleaved"] = interleaved
    return row.layout(shape, **own)


CORRECTIONS = ("r", "d")  # of batch renormalization
RANK = ("rank_n", "rank_mean", "rank_var")  # of each rank by itself

# What an answer can be given for in the family, in the order in which a person computes it.
QUANTITIES = (
    "mean", "mean_square", "var", "var_unbiased", "rstd", *CORRECTIONS, "normalized", "output",
    "running_mean", "running_var",
)  # fmt: skip

STATE_ARRAYS = ("weight", "bias", "running_mean", "running_var")  # of a layer
PARAMETERS = ("grad_weight", "grad_bias")  # what has the shape of weight and bias
GRADIENTS = ("grad_input", *PARAMETERS)
ALIASES = {
    "dx": "grad_input", "dweight": "grad_weight", "dgamma": "grad_weight", "dbias": "grad_bias", "dbeta": "grad_bias",
    "dy": "grad_output",
}  # fmt: skip


def quantities() -> tuple[str, ...]:
    """The same, with what other kinds than the family have besides.

    >>> quantities() == QUANTITIES
    True
    """
    return tuple(dict.fromkeys([*QUANTITIES, *(name for kind in KINDS.values() for name in kind.statistics)]))
