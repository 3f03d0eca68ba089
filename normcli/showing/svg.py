"""What a terminal shows, kept as a picture (SVG): generic fonts, an own background, nothing from a network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from normcli.showing.report import Detail, Report
from normcli.showing.sections import headline
from normcli.showing.table import Screen, shown

# Rich's own template fetches a font; here the lines stand midway where it has a title bar.
_TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>TITLE</title>
<style>
.{unique_id}-matrix {{ font-family: DejaVu Sans Mono, Menlo, Consolas, monospace; font-size: {char_height}px }}
{styles}
</style>
<defs>
{lines}
</defs>
<rect width="{width}" height="{height}" fill="#ffffff"/>
<g transform="translate({terminal_x}, 37)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def screenshot(reports: Sequence[Report], detail: Detail) -> str:
    """What a screen of our own shows when everything is printed on it.

    >>> from normcli.calculate import normalize
    >>> screenshot([Report(result=normalize([[1.0, 3]], "layer"))], Detail()).splitlines()[1][:28]
    '<title>LayerNorm  (1, 2) flo'
    """
    screen = Screen()
    for report in reports:
        screen.writelines(shown(report, detail, screen))
    title = escape(headline(reports[0].calculated)).replace("{", "{{").replace("}", "}}")
    return screen.svg(_TEMPLATE.replace("TITLE", title))
