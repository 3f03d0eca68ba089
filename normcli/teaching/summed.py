"""Gradients of weight and bias that were summed over other axes than weight lacks, or over none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np

from normcli.planning.kinds import PARAMETERS
from normcli.planning.plan import Plan
from normcli.teaching.judgement import Question, difference
from normcli.teaching.other_axes import axes_words
from normcli.teaching.pen import Floats
from normcli.teaching.sheet import ungrouped
from normcli.teaching.verdict import Check, Compared, Diagnosis

_MOST_AXES = 5  # of a tensor whose sums over all sets of axes are tried
_TERMS = {"grad_weight": "grad_output * normalized", "grad_bias": "grad_output"}


def summed_axes(settled: Plan) -> tuple[int, ...]:
    """The axes that weight lacks, in the input's own numbering.

    >>> from normcli.planning.plan import plan
    >>> summed_axes(plan("batch", (2, 3, 4), "float64", {})), summed_axes(plan("layer", (2, 3, 4), "float64", {}))
    ((0, 2), (0, 1))
    """
    rank, layout = len(settled.shape), settled.layout
    trailing = range(rank - len(settled.normalized_shape or ()), rank)
    own = {*trailing, *([] if layout.channel_axis is None else [layout.channel_axis])}
    own |= {0} if layout.is_per_sample else set()
    return tuple(axis for axis in range(rank) if axis not in own)


def summed_otherwise(question: Question) -> Iterator[tuple[str, Compared, Diagnosis]]:
    """Each gradient of a parameter that is a sum over other axes, with the answer beside that sum."""
    settled, worked = question.work.plan, question.right.worked
    right, rank = summed_axes(settled), len(settled.shape)
    for name in PARAMETERS if rank <= _MOST_AXES else ():
        if name not in question.answers or name not in question.exact:
            continue
        groups = worked.flow * worked.normalized if name == "grad_weight" else worked.flow
        terms = ungrouped(groups, worked.layout, settled.shape)
        for axes in (axes for n in range(rank + 1) for axes in combinations(range(rank), n) if axes != right):
            found = _compared(question, name, terms, axes)
            if found is not None:
                yield name, found, _diagnosis(found, axes, right)
                break


def _compared(question: Question, name: str, terms: Floats, axes: tuple[int, ...]) -> Compared | None:
    """The answer beside the sum over those axes; None where that is not what it is."""
    answer = question.answers[name]
    shape = terms.sum(axis=axes).shape
    if answer.values.size != np.prod(shape) or long(answer.values.shape) != long(shape):
        return None
    sums, sizes = (values.sum(axis=axes).reshape(answer.values.shape) for values in (terms, np.abs(terms)))
    most, unit = question.most[name]
    allowed = most + unit * (4 + np.sqrt(terms.size / max(1, sums.size))) * sizes
    left = difference(answer.values, sums)
    if not (left <= allowed).all() or not sizes.any():
        return None
    own = question.readings[name][0].own
    return Compared(
        name=name, yours=answer.values, exact=sums, difference=left, allowed=allowed, own=own,
        wrong=np.ones(sums.shape, bool),
    )  # fmt: skip


def _diagnosis(found: Compared, axes: tuple[int, ...], right: tuple[int, ...]) -> Diagnosis:
    terms, over = _TERMS[found.name], axes_words(right)
    if axes:
        key, slipped = "sum_axes", f"sum({terms}) over {axes_words(axes)}"
        text = f"Your numbers are what a sum over {axes_words(axes)} gives, {slipped}."
    else:
        key, slipped = "not_reduced", terms
        text = f"Your numbers are the terms of a sum, {slipped}, not added up."
    right_formula = f"sum({terms}) over {over}"
    return Diagnosis(
        keys=(key,),
        text=f"{text}\nWhat {found.name.removeprefix('grad_')} receives comes from all elements that it belongs to, "
        f"{right_formula}.   [{key}]",
        max_error=float(found.difference.max()),
        right_formula=right_formula,
        slipped_formula=slipped,
        first_cell=None,
    )


def of_another_shape(question: Question, name: str) -> Check | None:
    """The verdict on a gradient of a parameter whose shape is that of another sum; None if it is no such sum."""
    for _, compared, diagnosis in summed_otherwise(replace(question, answers={name: question.answers[name]})):
        shapes = f"the answer's shape is {compared.yours.shape}, that of {name} {question.exact[name].shape}"
        return Check(quantities=(compared,), turned=shapes, diagnoses=(diagnosis,))
    return None


def long(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the axes of length 1.

    >>> long((1, 4))
    (4,)
    """
    return tuple(size for size in shape if size > 1)
