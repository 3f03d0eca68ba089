"""The entry point: what must be right before anything else is imported."""

from __future__ import annotations

import io
import signal
import sys


def main() -> None:
    """Run normcli on ``sys.argv``."""
    # Until the command runs, Ctrl-C ends the process silently, as it ends any other filter.
    interrupted = signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `normcli ... | head -1` ends quietly
    from normcli.cli import COMMANDS, fail, make_app

    if sys.stdout is None:
        fail("standard output is closed", 3)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a title may hold what the terminal cannot show
    arguments = list(protected(sys.argv[1:]))
    named = [name for name in COMMANDS if arguments[:1] == [name]]
    signal.signal(signal.SIGINT, interrupted)
    make_app(named or COMMANDS)(args=arguments, prog_name="normcli")


def protected(arguments: list[str]) -> list[str]:
    """The arguments with a blank before negative numbers, which would else be taken for options.

    >>> protected(["layer", "-1", "--eps", "-.5", "-o", "--", "-2"])
    ['layer', ' -1', '--eps', ' -.5', '-o', '--', '-2']
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [f" {text}" if _is_negative_number(text) else text for text in arguments[:end]] + arguments[end:]


def _is_negative_number(text: str) -> bool:
    rest = text[1:].lower()
    return text.startswith("-") and (rest[:1].isdigit() or rest.startswith((".", "inf", "nan", "[")))


if __name__ == "__main__":
    main()
