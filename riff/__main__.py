"""``python -m riff`` is the ``riff`` command."""

import sys

from riff.cli import main

if __name__ == "__main__":
    sys.exit(main())
