"""``riff`` and ``python -m riff``: one command in a process of its own."""

import atexit
import gc
import sys

from riff.cli import main as run_command


def main() -> int:
    """Run the command that the process was started with, sparing it most of Python's garbage collection.

    The imports of torch, transformers and diffusers make a million objects that live until the end: looking
    through them again and again, and once more at exit, takes a fifth of a cold start.
    """
    gc.set_threshold(20_000)
    atexit.register(gc.freeze)
    return run_command()


if __name__ == "__main__":
    sys.exit(main())
