"""What a calculation gives: named quantities, in the order in which a person computes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from normcli.planning.kinds import GRADIENTS, QUANTITIES, RANK
from normcli.planning.layout import rows
from normcli.words import Told

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normcli.planning.plan import Plan


@dataclass(frozen=True, eq=False, init=False)
class State:
    """The learned and the running numbers of a layer; None where it has none.

    All are float arrays: ``weight`` and ``bias`` of shape (C) (of ``normalized_shape`` for layer
    and rms), ``running_mean`` and ``running_var`` of shape (C).
    """

    weight: NDArray[Any] | None = None
    bias: NDArray[Any] | None = None
    running_mean: NDArray[Any] | None = None
    running_var: NDArray[Any] | None = None
    num_batches_tracked: int = 0
    others: Mapping[str, NDArray[Any]] | None = None  # what else comes with the input, by name

    def __init__(
        self,
        *,
        weight: NDArray[Any] | None = None,
        bias: NDArray[Any] | None = None,
        running_mean: NDArray[Any] | None = None,
        running_var: NDArray[Any] | None = None,
        num_batches_tracked: int = 0,
        others: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        fields = {
            "weight": weight,
            "bias": bias,
            "running_mean": running_mean,
            "running_var": running_var,
            "num_batches_tracked": num_batches_tracked,
            "others": others,
        }
        object.__setattr__(self, "__dict__", fields)  # all at once: a frozen dataclass sets one after the other

    def tensor(self, name: str) -> NDArray[Any] | None:
        """A tensor of that name."""
        found: NDArray[Any] | None = (self.others or {}).get(name, getattr(self, name, None))
        return found


_REFERENCE = "numpy"  # as arithmetic.run has it
_NOTHING = State()
_NAMELESS: Mapping[str, Any] = {}
_FAMILY = frozenset({*QUANTITIES, "centered", "grad_output", *GRADIENTS})


class Named(Mapping[str, Any]):
    """Quantities by their names; one that is a function is worked out when it is first asked for.

    >>> dict(Named({"mean": 3.0, "var_unbiased": lambda: 7.0}))
    {'mean': 3.0, 'var_unbiased': 7.0}
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        if callable(value):
            value = self._values[name] = value()
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True, repr=False, eq=False, init=False)
class Result(Told):
    """The outcome of one normalization.

    >>> from normcli.calculate import normalize
    >>> normalize([[1, 2], [3, 5]], "batch")
    <BatchNorm, train, of (2, 2) float64: mean, var, var_unbiased, rstd, output, running_mean, running_var>

    The statistics are float64 (torch tensors give tensors) with one value for each group of
    statistics: shape (C) for batch, (N, C) for instance, (N, G) for group, the leading shape for
    layer and rms. ``output`` has the shape and dtype of the input. For rms, ``mean_square`` stands
    in place of ``mean``, ``var`` and ``var_unbiased``, which are None. ``centered`` and
    ``normalized`` are float64 arrays of the input's shape where the steps were asked for.

    ``grad_input`` (shape and dtype of the input), ``grad_weight`` and ``grad_bias`` (float64, shape of weight)
    are the gradients of sum(output * grad_output), None without one and where there is none.
    """

    plan: Plan
    named: Mapping[str, Any]
    output: Any
    before: State
    after: State
    backend: str
    device: str
    warnings: tuple[str, ...]
    x: Any  # the input itself, not a copy, where it is small: for its trace

    def __init__(
        self,
        *,
        plan: Plan,
        named: Mapping[str, Any] = _NAMELESS,
        output: Any = None,
        before: State = _NOTHING,
        after: State = _NOTHING,
        backend: str = _REFERENCE,
        device: str = "cpu",
        warnings: tuple[str, ...] = (),
        x: Any = None,
    ) -> None:
        fields = {
            "plan": plan,
            "named": named,
            "output": output,
            "before": before,
            "after": after,
            "backend": backend,
            "device": device,
            "warnings": warnings,
            "x": x,
        }
        object.__setattr__(self, "__dict__", fields)

    def __repr__(self) -> str:
        plan = self.plan
        mode = f", {plan.mode}," if plan.kind.has_running_stats else ""
        where = "" if self.backend == _REFERENCE else f" on {self.device} by {self.backend}"
        running = ("running_mean", "running_var") if plan.track_running_stats else ()
        found = [name for name in ("output", *running) if getattr(self, name) is not None]
        names = dict.fromkeys(
            [*(name for name in self.named if not name.startswith("grad_")), *found, *self.gradients()]
        )
        return f"<{plan.kind.title}{mode} of {plan.shape} {plan.dtype}{where}: {', '.join(names)}>"

    def _repr_html_(self) -> str | None:
        return self._repr_mimebundle_().get("text/html")

    def _repr_latex_(self) -> str | None:
        return self._repr_mimebundle_().get("text/latex")

    def __getattr__(self, name: str) -> Any:
        # Every kind has its own names; those of the family are None where a kind, or this result, has none.
        named = self.__dict__.get("named", {})
        if name not in named and name not in _FAMILY:
            raise AttributeError(f"a Result has no {name}")
        return named.get(name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self.named, *_FAMILY})

    def statistics(self) -> dict[str, Any]:
        """What there is one value of for each group of statistics, by its name, in the order of the lines."""
        return {name: self.named[name] for name in self.plan.statistics if name in self.named}

    def of_ranks(self) -> dict[str, Any]:
        """Of ranks that share a batch what each has by itself: rank_n, and rank_mean and rank_var of (ranks, C)."""
        return {name: self.named[name] for name in RANK if name in self.named}

    def gradients(self) -> dict[str, Any]:
        """The gradients by their names; none without a ``grad_output``.

        >>> from normcli.calculate import normalize
        >>> normalize([[1, 2, 4]], "layer", grad_output=[[0, 0, 1]]).gradients()["grad_bias"].tolist()
        [0.0, 0.0, 1.0]
        """
        names = (*GRADIENTS, *(self.plan.gradient_name(one.name) for one in self.plan.tensors))
        return {name: self.named[name] for name in dict.fromkeys(names) if name in self.named}

    def by_rank(self, name: str = "output") -> tuple[Any, ...]:
        """The rows of each rank's own, of what has the shape of the input; all of them where there are no ranks.

        >>> from normcli.calculate import normalize
        >>> [part.shape for part in normalize([[[1, 2]], [[3, 4], [5, 7]]], "batch", ranks=True).by_rank()]
        [(1, 2), (2, 2)]
        """
        found = getattr(self, name)
        return (found,) if found is None or not self.plan.ranks else tuple(found[at] for at in rows(self.plan.ranks))

    @property
    def running_mean(self) -> Any:
        """The running mean after this input, shape (C), or None without running statistics."""
        return self.after.running_mean

    @property
    def running_var(self) -> Any:
        """The running variance after this input, shape (C), or None."""
        return self.after.running_var

    @property
    def num_batches_tracked(self) -> int | None:
        """How many batches the running statistics have seen, or None."""
        return self.after.num_batches_tracked if self.plan.track_running_stats else None
