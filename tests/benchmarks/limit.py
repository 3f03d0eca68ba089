"""How the time of an element depends on how many there are and on how many groups, as a table and as a picture.

Each of normcli's and torch's calls writes a fresh output; a copy of as many bytes is the limit. float32 throughout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil, floor, log10
from pathlib import Path

import torch
from speed import HEADER, goal, measured, row

from normcli.arithmetic.threads import cores

PICTURE = Path(__file__).parents[2] / "examples" / "speed.svg"
SIZES = [10**power for power in range(2, 9)]  # elements, in groups of 1000
GROUPS = [10**power for power in range(8)]  # groups of TOTAL elements
TOTAL = 10**8
CALL, FLAT = 2.0, 2.0  # goals: the ratio from 1e3 to 1e5 elements; the dearest element as a multiple of the cheapest
BY_SIZE, BY_GROUPS = "elements, in groups of 1000", "groups, of one total size"
CURVES = {"fresh": "normcli", "torch": "torch", "copy": "copy"}
WIDTH, HEIGHT, LEFT, TOP, ACROSS, DOWN = 250, 190, 70, 80, 330, 280  # of a panel, and from one to the next
STYLE = """\
rect { fill: #fff } text { font: 14px Helvetica, Arial, sans-serif; fill: #222 }
line { stroke: #ddd } polyline { fill: none; stroke-width: 2.5; stroke-linejoin: round }
.normcli { stroke: #0072b2 } .torch { stroke: #d55e00 } .copy { stroke: #777 }
.torch { stroke-dasharray: 8 4 } .copy { stroke-dasharray: 2 3 }
@media (prefers-color-scheme: dark) {
rect { fill: #0d1117 } text { fill: #ddd } line { stroke: #333 }
.normcli { stroke: #56b4e9 } .torch { stroke: #e69f00 } .copy { stroke: #aaa }
}"""

Curves = Mapping[int, Mapping[str, float]]  # by the number of elements or of groups


def curves(kind: str, groups: Mapping[int, tuple[int, int]]) -> Curves:
    """What is measured for each number; the table's lines are printed on the way."""
    found = {}
    for number, (count, length) in groups.items():
        shape = (count, length) if kind == "layer" else (length, count)
        found[number] = measured(kind, shape, {}, "float32", last=False)
        print(row(kind, shape, "float32", False, found[number]), flush=True)  # noqa: FBT003
    return found


def spread(those: Sequence[Mapping[str, float]]) -> float:
    """How many times as long the dearest element takes as the cheapest."""
    times = [found["fresh"] for found in those]
    return max(times) / min(times)


def panel(x: float, y: float, title: str, by: str, drawn: Curves, powers: tuple[int, int]) -> Iterator[str]:
    """One diagram, both axes logarithmic; the vertical one from one power of ten to another."""
    low, high = powers
    first, last = log10(min(drawn)), log10(max(drawn))

    def across(number: float) -> float:
        return x + WIDTH * (log10(number) - first) / (last - first)

    def down(time: float) -> float:
        return y + HEIGHT * (high - log10(time)) / (high - low)

    yield f'<text x="{x}" y="{y - 12}">{title}</text>'
    for power in range(low, high + 1):
        yield f'<line x1="{x}" x2="{x + WIDTH}" y1="{down(10**power):.1f}" y2="{down(10**power):.1f}"/>'
        yield f'<text x="{x - 8}" y="{down(10**power) + 5:.1f}" text-anchor="end">{ten(power)}</text>'
    for number in drawn:
        yield f'<line x1="{across(number):.1f}" x2="{across(number):.1f}" y1="{y}" y2="{y + HEIGHT}"/>'
        place = f'x="{across(number):.1f}" y="{y + HEIGHT + 20}"'
        yield f'<text {place} text-anchor="middle">{ten(round(log10(number)))}</text>'
    yield f'<text x="{x + WIDTH / 2}" y="{y + HEIGHT + 40}" text-anchor="middle">{by}</text>'
    for key, name in CURVES.items():
        points = " ".join(f"{across(number):.1f},{down(found[key]):.1f}" for number, found in drawn.items())
        yield f'<polyline class="{name}" points="{points}"/>'


def ten(power: int) -> str:
    """A power of ten.

    >>> ten(-1)
    '10⁻¹'
    """
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def svg(panels: Mapping[tuple[str, str], Curves]) -> str:
    """The picture: a row of panels for each thing that the time is measured by, a column for each kind."""
    kinds, things = (list(dict.fromkeys(keys)) for keys in zip(*panels, strict=True))
    width, height = ACROSS * len(kinds) + 20, DOWN * len(things) + 50
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
        "<title>ns per element of float32, by the number of elements and of groups</title>",
        f'<style>{STYLE}</style><rect width="{width}" height="{height}"/>',
        '<text x="20" y="30">ns per element</text>',
    ]
    for index, name in enumerate(CURVES.values()):
        start = LEFT + 110 + 130 * index
        lines.append(f'<polyline class="{name}" points="{start},25 {start + 36},25"/>')
        lines.append(f'<text x="{start + 44}" y="30">{name}</text>')
    for line, by in enumerate(things):
        times = [found[key] for kind in kinds for found in panels[kind, by].values() for key in CURVES]
        powers = floor(log10(min(times))), ceil(log10(max(times)))
        for column, kind in enumerate(kinds):
            place = LEFT + ACROSS * column, TOP + DOWN * line
            lines += panel(*place, kind, by, panels[kind, by], powers)
    return "\n".join([*lines, "</svg>", ""])


def main(
    sizes: Sequence[int] = SIZES, groups: Sequence[int] = GROUPS, total: int = TOTAL, path: Path = PICTURE
) -> None:
    """Print the table and what became of the goals, and draw the picture."""
    torch.set_num_threads(cores())
    print(f"ns per element, {cores()} threads, {torch.get_num_threads()} of torch's {torch.__version__}")
    print(HEADER)
    panels = {}
    by_size = {size: (max(1, size // 1000), min(size, 1000)) for size in sizes}
    by_groups = {count: (count, total // count) for count in groups}
    for kind in ("layer", "batch"):
        panels[kind, BY_SIZE] = curves(kind, by_size)
        panels[kind, BY_GROUPS] = curves(kind, by_groups)
    for (kind, by), found in panels.items():
        if by == BY_SIZE:
            small = [those["ratio"] for size, those in found.items() if 10**3 <= size <= 10**5]
            goal(f"{kind}, worst ratio from 1e3 to 1e5 elements", max(small), CALL)
            flat = [those for size, those in found.items() if size >= min(10**5, max(sizes))]
            goal(f"{kind}, dearest by cheapest from 1e5 elements", spread(flat), FLAT)
        else:
            flat = [those for count, those in found.items() if count <= 10**6]
            goal(f"{kind}, dearest by cheapest up to 1e6 groups", spread(flat), FLAT)
    path.write_text(svg(panels))
    print(f"{path.name} is drawn")
