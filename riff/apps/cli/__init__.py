"""The ``riff`` command: one verb per module, one line per mistake, one exit code per kind of mistake.

Modules here import nothing heavy at their top, so that ``riff --help`` answers at once.
"""

import argparse
import contextlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TextIO

import riff
from riff.apps.cli import bench, edit, evaluate, files, info, play, prepare, render, serve, train
from riff.apps.cli.options import Parser
from riff.utils.errors import RiffError

# In the order of the help.
VERBS = {
    "render": render.add_verb,
    "walk": render.add_verb_walk,
    "remix": edit.add_verb_remix,
    "extend": edit.add_verb_extend,
    "inpaint": edit.add_verb_inpaint,
    "encode": files.add_verb_encode,
    "decode": files.add_verb_decode,
    "prepare": prepare.add_verb,
    "train": train.add_verb,
    "convert": files.add_verb_convert,
    "eval": evaluate.add_verb,
    "bench": bench.add_verb,
    "info": info.add_verb,
    "replay": info.add_verb_replay,
    "serve": serve.add_verb,
    "play": play.add_verb,
}
EXIT_CODES = """\
exit codes:
  0 done · 2 wrong usage or input · 4 model cannot be used · 5 environment or disk · 130 interrupted
  1 is a defect in riff: please report it with what --debug prints"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``riff``; default those the process was started with.

    Returns:
        The exit code (:data:`EXIT_CODES`). Results go to stdout; progress and one line per problem to stderr.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    # A name that the terminal's encoding lacks must not end a finished job.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _quiet_libraries(debug=debug), _stop_on_sigterm():
            args = build_parser().parse_args(words)
            args.run(args)
            if sys.stdout is not None:
                sys.stdout.flush()
        return 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except BrokenPipeError:
        # The reader (head, less) has gone, which is no fault.
        _abandon_stdout()
        return 0
    except KeyboardInterrupt:
        return _report("interrupted; no unfinished file was left", 130, debug=debug)
    except RiffError as error:
        return _report(f"error: {error}", error.exit_code, debug=debug)
    except MemoryError:
        return _report("error: not enough memory; use fewer --bars or a smaller --duration", 5, debug=debug)
    except ImportError as error:
        return _report(f"error: {error}; install riff again: python -m pip install .", 5, debug=debug)
    except OSError as error:
        _abandon_stdout()
        return _report(f"error: {error}", 5, debug=debug)
    except Exception as error:
        message = f"error: {type(error).__name__}: {error} (a defect in riff; --debug shows where)"
        return _report(message, 5 if type(error).__name__ == "OutOfMemoryError" else 1, debug=debug)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs; what it parses has ``run``, the function that does the verb's work."""
    parser = Parser(
        prog="riff",
        description="A sentence becomes music: latent diffusion on spectrograms, with the model in the box.",
        epilog='example:\n  riff render "lo-fi hip hop, mellow electric piano, 84 bpm" -o lofi.wav\n\n' + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"riff {riff.__version__}")
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument("--json", action="store_true", help="print the result as one JSON object")
    everywhere.add_argument("--quiet", action="store_true", help="print nothing but the result and errors")
    everywhere.add_argument("--debug", action="store_true", help="show tracebacks and what libraries say")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for add_verb in VERBS.values():
        add_verb(verbs, everywhere)
    return parser


def _abandon_stdout() -> None:
    """Let what is still to be printed vanish, else Python complains about it once more at exit."""
    with contextlib.suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(message: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    one_line = " ".join(message.split())
    with contextlib.suppress(OSError):  # stderr may be closed too; the exit code still tells
        print(f"riff: {one_line}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _quiet_libraries(*, debug: bool) -> Iterator[None]:
    """Show riff's own warnings as one line each and keep other libraries' to ``--debug``."""
    if debug:
        yield
        return
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    home = Path(riff.__file__).parent

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if Path(filename).is_relative_to(home):
            print(f"riff: warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception for the time of a command, so that unfinished files are removed."""

    def stop(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread, where signals do not arrive
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
