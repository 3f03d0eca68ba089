"""The entry point: what must be right before anything else is imported."""

from __future__ import annotations

import atexit
import gc
import io
import os
import signal
import sys

from normcli.errors import complain

_LEAST = 96 * 2**20  # bytes of address space that NumPy takes when it is imported, with some to spare


def main() -> None:
    """Run normcli on ``sys.argv``."""
    # What is imported stays to the end: to look through it for garbage, again and again while it is imported and once
    # more when Python ends, takes a sixth of a short run. Commands that hold tensors turn the collector on again.
    gc.disable()
    atexit.register(gc.freeze)
    # Until the command runs, Ctrl-C ends the process silently, as it ends any other filter.
    interrupted = signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `normcli ... | head -1` ends quietly
    # NumPy's BLAS has no matrices to multiply here, and where memory is short it would end the process itself.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not _are_free(_LEAST):
        complain(f"not enough memory: {_LEAST // 2**20} MiB are not free")
        sys.exit(3)
    from normcli.commands.cli import COMMANDS, fail, make_app
    from normcli.commands.typed import joined

    if sys.stdout is None:
        fail("standard output is closed", 3)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a title may hold what the terminal cannot show
    arguments = protected(joined(sys.argv[1:]))
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    named = [name for name in COMMANDS if arguments[:1] == [name]]
    signal.signal(signal.SIGINT, interrupted)
    listed = arguments in (["--help"], ["-h"])
    make_app(named or COMMANDS, listed=listed)(args=arguments, prog_name="normcli")


def _are_free(size: int) -> bool:
    """Whether so many bytes can be had, found out without touching them."""
    import mmap

    try:
        mmap.mmap(-1, size).close()
    except (OSError, ValueError, MemoryError):
        return False
    return True


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
