"""``riff play``: a page in the browser to play on."""

import argparse
import contextlib
import os
from typing import Any

from riff.apps.cli.generate import load_pipeline
from riff.apps.cli.options import Ignored, add_command, add_loading_options, number
from riff.utils.errors import RiffError, SystemProblem

_EXAMPLES = """\
  riff play                                       opens the page in the browser; Ctrl-C ends it
  riff play --model runs/blues/model --port 8080  another model
  riff play --lora runs/wug/model:0.8             a LoRA on top of it
  riff play --no-browser                          prints the address only"""


def add_play(verbs: Any) -> None:
    """Add ``riff play``."""
    parser = add_command(
        verbs,
        "play",
        run_play,
        help="open a page in the browser to play on",
        description="Open a page in the browser on which music is composed, walked, edited and painted. It is for this "
        "machine only and works without a network. Needs riff-music[ui].",
        examples=_EXAMPLES,
    )
    add_loading_options(parser)
    parser.add_argument("--port", type=number(0, 65535, whole=True), default=7860, help="default 7860; 0 takes any")
    parser.add_argument(
        "--host", default="127.0.0.1",
        help="address to listen on; default 127.0.0.1, this machine. The page has no password, so another one "
        "lets in everyone who can reach it",
    )  # fmt: skip
    parser.add_argument("--no-browser", action="store_true", help="do not open the browser")
    parser.add_argument("--share", choices=["never"], action=Ignored, help=argparse.SUPPRESS)


def run_play(args: argparse.Namespace) -> None:
    """Hold the page until Ctrl-C."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise SystemProblem(f"riff play needs {error.name}; python -m pip install 'riff-music[ui]'") from error
    if not args.host.strip():
        raise RiffError("--host is empty; use 127.0.0.1, or an address of this machine")
    from riff.apps.playground.app import serve
    from riff.apps.playground.stage import Stage

    stage = Stage(load_pipeline(args), args.model, tuple(args.lora))

    def announce(address: str) -> None:
        with contextlib.suppress(OSError):
            print(address, flush=True)

    serve(stage, host=args.host, port=args.port, announce=announce, browser=not args.no_browser)
