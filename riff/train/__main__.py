"""``python -m riff.train`` and ``accelerate launch -m riff.train`` are ``riff train``."""

import sys

from riff.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
