"""``riff serve``: the pipeline over HTTP."""

import argparse
import contextlib
import ipaddress
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riff.apps.cli.generate import load_pipeline
from riff.apps.cli.options import Ignored, add_command, add_loading_options, number, options_of
from riff.tasks.requests import RenderRequest
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.schema import describe_fields

if TYPE_CHECKING:
    from riff.apps.server.settings import Settings

TOKEN_VARIABLE = "RIFF_TOKEN"
_LEAST_TOKEN = 16
_EXAMPLES = """\
  riff serve                                       on this machine only, port 3013; the page is /docs
  riff serve --model riffusion/riffusion-model-v1  Riffusion's web app works against it as it is
  RIFF_TOKEN=... riff serve --host 0.0.0.0         for others, who must send the token
  curl -X POST localhost:3013/v1/render -H 'content-type: application/json' \\
       -d '{"prompt": "lo-fi hip hop, 84 bpm", "format": "mp3"}' -o lofi.mp3"""


def add_serve(verbs: Any) -> None:
    """Add ``riff serve``."""
    parser = add_command(
        verbs,
        "serve",
        run_serve,
        help="answer requests over HTTP",
        description="Answer requests over HTTP: /v1/render and the rest, /v1/stream, and Riffusion's /run_inference. "
        "Needs riff-music[serve]. The log goes to stderr, one JSON object per line.",
        examples=_EXAMPLES,
    )
    add_loading_options(parser)
    access = parser.add_argument_group("access")
    access.add_argument("--host", default="127.0.0.1", help="address to listen on; default 127.0.0.1, this machine")
    access.add_argument("--port", type=number(0, 65535, whole=True), default=3013, help="default 3013; 0 takes any")
    access.add_argument(
        "--token-file", metavar="FILE", help=f"holds the token; else {TOKEN_VARIABLE} in the environment"
    )
    access.add_argument("--no-auth", action="store_true", help="let in everyone who reaches --host")
    access.add_argument(
        "--allow-host",
        dest="allow_hosts",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that it is reached by; repeatable",
    )
    access.add_argument(
        "--allow-origin", dest="allow_origins", action="append", default=[], metavar="ORIGIN",
        help="pages that may call it, like https://example.org, or *; repeatable",
    )  # fmt: skip
    _add_limits(parser.add_argument_group("limits"))
    parser.add_argument("--log-prompts", action="store_true", help="let the log contain prompts")


def _add_limits(limits: Any) -> None:
    highest: dict[str, Any] = {field.name: field.high for field in describe_fields(RenderRequest)}
    steps, bars, seconds = (highest[name] for name in ("num_inference_steps", "bars", "duration"))
    # Option, field of the server's settings, range, default, help; whole numbers have whole defaults.
    for option, name, low, high, default, text in (
        ("queue", "queue_size", 1, 10_000, 8, "requests that wait"),
        ("batch", "batch_size", 1, 64, None, "similar requests generated side by side; default 4, on a CPU 1"),
        ("deadline", "deadline_s", 1, 86400, 300.0, "seconds from a request's arrival to its result"),
        ("grace", "grace_s", 0, 3600, 30.0, "seconds for what runs at SIGTERM"),
        ("max-steps", "max_steps", 1, steps, steps, "denoising steps"),
        ("max-prompt", "max_prompt", 1, 10_000, 1000, "characters of a prompt"),
        ("max-bars", "max_bars", 1, bars, bars, "bars of a result"),
        ("max-seconds", "max_seconds", 1, seconds, float(seconds), "seconds of sound"),
        ("max-body", "max_body", 0.001, 1024, 16.0, "MB of a request"),
        ("max-connections", "max_connections", 1, 10_000, 64, "requests at a time"),
        ("max-streams", "max_streams", 0, 100, 2, "endless streams at a time"),
        ("idle", "idle_s", 0.1, 3600, 10.0, "seconds that a client may pause while it sends"),
    ):
        kind = number(low, high, whole=not isinstance(default, float))
        shown = text if default is None else f"{text}; default {default:g}"
        limits.add_argument(f"--{option}", dest=name, type=kind, default=default, metavar="N", help=shown)


def run_serve(args: argparse.Namespace) -> None:
    """Serve until a signal comes."""
    settings = make_settings(args)
    try:
        import fastapi_offline  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise SystemProblem(f"riff serve needs {error.name}; python -m pip install 'riff-music[serve]'") from error
    from riff.apps.server.process import serve

    def announce(address: str) -> None:
        if not args.quiet:
            with contextlib.suppress(OSError):
                print(address, flush=True)

    serve(lambda: load_pipeline(args), settings, announce, log=sys.stderr)


def make_settings(args: argparse.Namespace) -> "Settings":
    """The options as the server takes them.

    Raises:
        RiffError: an address that others reach without a token, or a wrong token.
    """
    from riff.apps.server.settings import MB, Settings

    token = _token(args)
    if not _is_local(args.host) and token is None and not args.no_auth:
        raise RiffError(f"--host {args.host} lets others in; set {TOKEN_VARIABLE} or --token-file, or say --no-auth")
    for origin in args.allow_origins:
        if origin != "*" and ("://" not in origin or origin.endswith("/")):
            raise RiffError(f"--allow-origin {origin} is no origin; write it like https://example.org, or *")
    options = options_of(Settings, args) | {"token": None if args.no_auth else token}
    options |= {"allow_hosts": tuple(name.lower() for name in args.allow_hosts)}
    return Settings(**options | {"allow_origins": tuple(args.allow_origins), "max_body": round(args.max_body * MB)})


def _token(args: argparse.Namespace) -> str | None:
    token = os.environ.get(TOKEN_VARIABLE)
    if args.token_file is not None:
        try:
            token = Path(args.token_file).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise RiffError(f"--token-file {args.token_file} cannot be read; give a file that holds a token") from error
    if token is None:
        return None
    token = token.strip()
    if len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable():
        raise RiffError(f"the token is not {_LEAST_TOKEN} plain characters or more; make one: openssl rand -hex 16")
    return token


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# ``riff play``: a page in the browser to play on.

_EXAMPLES_PLAY = """\
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
        examples=_EXAMPLES_PLAY,
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
