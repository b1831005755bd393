"""Where the work of a command is done: on this machine, or on a Ray cluster."""

import argparse
from typing import Any

from riff.errors import RiffError


def add_engine(group: Any) -> None:
    """Options that choose it."""
    group.add_argument(
        "--engine", choices=["local", "ray"], default="local",
        help="local (default), or ray: processes of a Ray cluster, which one may lose without losing work",
    )  # fmt: skip
    group.add_argument(
        "--address", metavar="HOST:PORT",
        help="of the Ray cluster, ray://HOST:PORT or auto; default $RAY_ADDRESS, else one is started on this machine",
    )  # fmt: skip


def check_engine(args: argparse.Namespace) -> None:
    """Raise RiffError if an option of the cluster was given without it, or the other way round."""
    if args.address is not None and args.engine != "ray":
        raise RiffError(f"--address {args.address} goes with --engine ray; give both or neither")
    if args.engine == "ray" and args.workers == 0:
        raise RiffError("--workers 0 works in this process, but --engine ray in others; use 1 or more")
