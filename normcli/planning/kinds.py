"""What a kind is: a row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from normcli.formula.family import CENTERED, RMS
from normcli.formula.language import Lines, lines


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A member of the family: its name, its layer's name and the options that mean something to it."""

    name: str
    title: str
    options: tuple[str, ...]
    text: str = CENTERED  # its lines
    group_words: tuple[str, ...] = ()  # what the indices of a group of statistics count; rows where there are none
    centers: bool = True  # whether a mean is subtracted; RMSNorm divides by the root mean square alone

    @property
    def program(self) -> Lines:
        """Its lines, whatever the options."""
        return lines(self.text)

    @property
    def has_running_stats(self) -> bool:
        """Whether the kind can keep statistics from one batch to the next."""
        return "running_mean" in self.options


_SHARED = ("eps", "weight", "affine", "convention", "dtype")


_CENTERED = (*_SHARED, "bias", "ddof")


_RUNNING = (
    *_CENTERED, "mode", "momentum", "decay", "track_running_stats", "running_mean", "running_var",
    "num_batches_tracked", "running_ddof", "channel_axis",
)  # fmt: skip


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(name="batch", title="BatchNorm", options=_RUNNING, group_words=("channel",)),
        Kind(name="instance", title="InstanceNorm", options=_RUNNING, group_words=("sample", "channel")),
        Kind(name="layer", title="LayerNorm", options=(*_CENTERED, "normalized_shape")),
        Kind(
            name="group",
            title="GroupNorm",
            options=(*_CENTERED, "groups", "channel_axis"),
            group_words=("sample", "group"),
        ),
        Kind(name="rms", title="RMSNorm", options=(*_SHARED, "normalized_shape"), text=RMS, centers=False),
    )
}
