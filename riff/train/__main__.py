"""``python -m riff.train`` and ``accelerate launch -m riff.train`` are ``riff train``."""

import sys

from riff.__main__ import main

if __name__ == "__main__":
    code = main(["train", *sys.argv[1:]])
    # Processes that trained together leave together: one whose peer has gone may abort at its exit.
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
    sys.exit(code)
