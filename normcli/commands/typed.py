"""What somebody typed, and what is meant by it: arguments as shells leave them, and other words for the same thing.

An option or a command has one name, so that scripts do not depend on spelling: another word is answered, with the name
and exit code 2, and not obeyed. What a shell has done to a tensor is undone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from normcli.planning.further import EVERY
from normcli.planning.kinds import Kind
from normcli.words import either, flag, near

_TENSOR = r"(?:[A-Za-z_]\w*=)?(?:[\w.]+)?[\[(][-−+0-9.,;eE\[\]()naifNIty]*"  # as it begins, up to a blank
_MORE = r"[-−+0-9.,;eE\[\]()naifNIty]*"
_NUMBER = r"[-−+]?[0-9.][0-9.eE+-]*"

# Words of other tools for our options; of several the first that the command has.
_OPTIONS = {
    ("axis", "dim", "dims", "axes", "axis_name"): ("channel_axis", "axes", "normalized_shape"),
    ("normalized_dim", "hidden_size", "features", "num_features"): ("normalized_shape", "channel_axis"),
    ("data_format", "channels_last", "channel_last", "channel_dim"): ("channel_axis",),
    ("num_groups", "group", "g"): ("groups",),
    ("scale", "gamma_initializer", "w"): ("weight",),
    ("shift", "offset", "center", "b"): ("bias",),
    ("epsilon", "epsilon_value", "variance_epsilon"): ("eps",),
    ("elementwise_affine", "use_bias", "use_scale"): ("affine",),
    ("training", "train", "eval", "evaluate", "inference", "is_training", "use_running_average", "test"): ("mode",),
    ("moving_mean", "mean", "running_avg"): ("running_mean",),
    ("moving_var", "moving_variance", "var", "variance", "running_variance"): ("running_var",),
    ("unbiased", "biased", "correction", "bessel"): ("ddof", "running_ddof"),
    ("track", "track_stats"): ("track_running_stats",),
    ("answer", "expected", "solution", "verify", "check", "target"): ("expect",),
    ("tolerance", "tol", "delta"): ("atol",),
    ("compare", "vs", "with", "against", "diff"): ("versus",),
    ("framework", "library", "like"): ("convention", "versus"),
    ("verbose", "show_steps", "step", "explain", "debug"): ("trace",),
    ("backward", "grad", "gradient", "upstream"): ("grad_output",),
    ("checkpoint", "model", "state_dict", "weights", "load"): ("state",),
    ("layer", "module", "name"): ("prefix",),
    ("round", "digits", "places"): ("precision", "decimals"),
    ("colour", "colors", "colours", "no_color", "no_colour"): ("color",),
    ("save", "out", "outfile", "to"): ("output",),
    ("type", "precision_type", "half", "float", "cast_to"): ("dtype",),
    ("gpu", "cuda"): ("device",),
    ("sizes", "size", "input_shape"): ("shape",),
    ("fmt", "output_format"): ("format",),
}  # fmt: skip

# Words of other tools for the kinds, without the rank of the tensor, hyphens and capitals.
_KINDS = {
    "bn": "batch", "ln": "layer", "in": "instance", "gn": "group", "batchnormalization": "batch",
    "layernormalization": "layer", "instancenormalization": "instance", "groupnormalization": "group",
    "rootmeansquare": "rms", "rmsnormalization": "rms", "syncbatchnorm": "batch", "l2": "lp", "l2norm": "lp",
    "l1": "lp", "normalize": "lp", "standardize": "zscore", "standardscaler": "zscore", "minmaxscaler": "minmax",
    "unitnormalization": "lp", "localresponse": "lrn", "localresponsenorm": "lrn", "ws": "weight-std",
    "compare": "batch", "versus": "batch", "verify": "check", "checkpoint": "state", "convention": "conventions",
    "axis": "axes", "fuse": "fold",
}  # fmt: skip


def joined(arguments: Sequence[str]) -> list[str]:
    """The arguments with what a shell without single quotes, such as cmd.exe, has left of a tensor put together again.

    >>> joined(["layer", "'[[1,", "2],[3,", "4]]'", "--eps", "'0'"])
    ['layer', '[[1, 2],[3, 4]]', '--eps', '0']
    >>> joined(["layer", "[[1,", "2]]", "[[1,"])
    ['layer', '[[1, 2]]', '[[1,']
    """
    found: list[str] = []
    left = list(arguments)
    while left:
        taken = _quoted(left) or _bracketed(left) or 1
        text = " ".join(left[:taken])
        is_quoted = len(text) > 1 and text[0] == text[-1] == "'"
        found.append(text[1:-1] if is_quoted else text)
        del left[:taken]
    return found


def _quoted(words: Sequence[str]) -> int:
    """How many words it takes from a single quote to the next; 0 where the first begins with none."""
    if words[0][:1] != "'" or (len(words[0]) > 1 and words[0].endswith("'")):
        return 0
    return next((number for number, word in enumerate(words[1:], 2) if word.endswith("'")), 0)


def _bracketed(words: Sequence[str]) -> int:
    """How many words it takes until the brackets that the first opens are closed; 0 where it is no part of a tensor."""
    if not _opened(words[0]) or not re.fullmatch(_TENSOR, words[0]):
        return 0
    left = 0
    for number, word in enumerate(words, 1):
        if number > 1 and not re.fullmatch(_MORE, word):
            return 0
        left += _opened(word)
        if left == 0:
            return number
    return 0


def _opened(word: str) -> int:
    return sum(map(word.count, "[(")) - sum(map(word.count, "])"))


_MODES = {"train": "--mode train", "eval": "--mode eval", "evaluate": "--mode eval", "inference": "--mode eval"}


def option_meant(typed: str, known: Collection[str], kind: str) -> str | None:
    """What a word for an option is called here, in words; None for a word that means nothing.

    >>> option_meant("--epsilon", ["eps", "weight"], "layer")
    'layer has no option --epsilon; here it is --eps'
    """
    name = typed.lstrip("-").replace("-", "_").lower()
    for words, names in _OPTIONS.items():
        if name in words and (ours := [flag(own) for own in names if own in known]):
            how = _MODES.get(name, "--mode train or --mode eval") if ours[0] == "--mode" else either(ours)
            return f"{kind} has no option {typed}; here it is {how}"
    return None


def owners_of(typed: str, options_of: dict[str, Collection[str]]) -> tuple[str, list[str]]:
    """The option that a word stands for, and the kinds that have it.

    >>> owners_of("--training", {"batch": ["mode"], "layer": ["eps"]})
    ('--mode', ['batch'])
    """
    name = typed.lstrip("-").replace("-", "_").lower()
    meant = next((names for words, names in _OPTIONS.items() if name in words), ())
    for own in (name, name.removeprefix("no_"), *meant):
        if owners := [kind for kind, options in options_of.items() if own in options]:
            return (typed if own in (name, name.removeprefix("no_")) else flag(own)), owners
    return typed, []


def command_meant(typed: str, commands: Collection[str]) -> str | None:
    """The command that a word stands for: a layer's name in some framework, or one that is nearly spelled so.

    >>> command_meant("BatchNorm2d", ["batch", "layer"]), command_meant("ln", ["batch", "layer"])
    ('batch', 'layer')
    """
    word = re.sub(r"[^a-z0-9]", "", typed.lower().rpartition(".")[2])
    word = re.sub(r"(?<=norm)[123]d$|(?<=normalization)[123]d$", "", word)
    titles = {kind.title.replace(" ", "").replace("-", "").lower(): name for name, kind in EVERY.items()}
    found = _KINDS.get(word) or titles.get(word) or titles.get(f"{word}norm")
    found = found or next(
        (name for name in commands if name.replace("-", "") in (word, word.removesuffix("norm"))), None
    )
    return found if found in commands else near(typed.lower(), commands)


def corrected(arguments: Sequence[str], command: str) -> str:
    """The command line with the right command, as it may be pasted.

    >>> corrected(["bn", "[[1, 2]]"], "batch")
    "normcli batch '[[1, 2]]'"
    """
    import shlex  # only where something is wrong

    line = shlex.join(["normcli", command, *(text.strip() for text in arguments[1:])])
    return line if len(line) <= 160 else f"normcli {command} --help shows what is possible"


def quotes_missing(kind: Kind | None, typed: Sequence[str]) -> str | None:
    """That several numbers are one tensor, in quotes; None where something else was typed.

    >>> from normcli.planning.kinds import KINDS
    >>> quotes_missing(KINDS["layer"], ["1", "2", "-3"])
    "3 numbers are one tensor in quotes and brackets: normcli layer '[1, 2, -3]'"
    """
    words = [text.strip(" ,") for text in typed]
    if (
        kind is None
        or len(words) < 2
        or not all(re.fullmatch(_NUMBER, word) and not Path(word).exists() for word in words)
    ):
        return None
    numbers = ", ".join(words)
    shape = f"'[[{numbers}]]'" if kind.least_rank > 1 else f"'[{numbers}]'"
    return f"{len(words)} numbers are one tensor in quotes and brackets: normcli {kind.name} {shape}"
