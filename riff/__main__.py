"""``riff`` and ``python -m riff``: one command in a process of its own."""

import atexit
import gc
import sys
from collections.abc import Sequence

from riff.apps.cli import main as run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run :func:`riff.apps.cli.main`, sparing the process most of Python's garbage collection.

    The imports of torch, transformers and diffusers make a million objects that live until the end: looking
    through them again and again, and once more at exit, takes a fifth of a cold start.
    """
    gc.set_threshold(20_000)
    atexit.register(gc.freeze)
    return run_command(argv)


if __name__ == "__main__":
    sys.exit(main())
