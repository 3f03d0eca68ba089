"""normcli axes: which elements of a tensor share one mean."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from normcli.errors import InputError
from normcli.files.write import check_suffix, write_text
from normcli.planning.layout import Shape
from normcli.planning.plan import plan
from normcli.showing import cube
from normcli.showing.axes import document, grid, headline, words
from normcli.showing.figure import Figure
from normcli.showing.table import print_picture

_MOST_AXES = 8
_MOST_ELEMENTS = 2**63 - 1


def figure_of(kind: str, shape: Shape, options: Mapping[str, Any]) -> Figure:
    """The figure of a kind and a shape; InputError for what the kind refuses, or cannot be drawn.

    >>> figure_of("layer", (2, 3), {}).plan.layout.count
    3
    """
    if not shape:
        raise InputError("--shape is empty; give the sizes of the tensor, such as --shape 2,6,4,4")
    if min(shape) < 1:
        raise InputError(f"--shape holds {min(shape)}; every size must be 1 or more")
    if len(shape) > _MOST_AXES:
        raise InputError(f"--shape has {len(shape)} axes; {_MOST_AXES} can be drawn")
    if math.prod(shape) > _MOST_ELEMENTS:
        raise InputError(f"--shape holds more than {_MOST_ELEMENTS:.3g} elements, which is more than any tensor has")
    return Figure(plan(kind, shape, "float32", options))


def show_axes(kind: str, shape: Shape, options: Mapping[str, Any], *, as_json: bool, svg: str | None) -> None:
    """Print the picture of a kind, or its document; draw it into a file as well if one is named."""
    if svg is not None:
        check_suffix(svg, [".svg"], "--svg")
    figure = figure_of(kind, shape, options)
    if svg is not None:
        write_text(svg, cube.svg(figure))
    if as_json:
        sys.stdout.write(json.dumps(document(figure)) + "\n")
        return
    print_picture(headline(figure), lambda canvas: grid(figure, canvas.width), words(figure))
