"""The ``riff`` command: a few verbs to a module, one line per mistake, one exit code per kind of mistake.

Modules here import nothing heavy at their top, so that ``riff --help`` answers at once.
"""

import argparse
import contextlib
import errno
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import riff
from riff.apps.cli import bench, edit, evaluate, files, info, prepare, render, replay, serve, train
from riff.apps.cli import info as doctor
from riff.apps.cli import serve as play
from riff.apps.cli.options import HelpFormatter, Parser, add_command, shell_text
from riff.utils.errors import RiffError, is_out_of_memory
from riff.utils.validation import suggest

# In the order of the help.
VERBS = {
    "render": render.add_render,
    "walk": render.add_walk,
    "remix": edit.add_remix,
    "extend": edit.add_extend,
    "inpaint": edit.add_inpaint,
    "encode": files.add_encode,
    "decode": files.add_decode,
    "prepare": prepare.add_prepare,
    "train": train.add_train,
    "convert": files.add_convert,
    "eval": evaluate.add_eval,
    "bench": bench.add_bench,
    "info": info.add_info,
    "replay": replay.add_replay,
    "serve": serve.add_serve,
    "play": play.add_play,
    "doctor": doctor.add_doctor,
    "completion": lambda verbs: _add_completion(verbs),
}
# Verbs that only show something, so that a reader who leaves early has missed no work.
SHOWS = ("info", "doctor", "completion", "bench")
EXIT_CODES = """\
exit codes:
  0 done · 2 wrong usage or input · 3 a replay differs · 4 model cannot be used · 5 environment or disk
  130 interrupted · 141 the reader of the output has gone, and the work is not done
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
        with _quiet_libraries(debug=debug, quiet="--quiet" in words), _stop_on_sigterm():
            _check_verb(words)
            args = build_parser().parse_args(words or ["--help"])
            args.run(args)
            if sys.stdout is not None:
                sys.stdout.flush()
        return 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except BrokenPipeError:
        _abandon_stdout()
        shown = {"--help", "-h", "--version", *SHOWS} & {*words[:1], *(word for word in words if word.startswith("-"))}
        return 0 if shown or not words else _report("the reader of the output has gone; stopped", 141, debug=debug)
    except KeyboardInterrupt:
        return _report("interrupted; no unfinished file was left", 130, debug=debug)
    except Exception as error:
        if isinstance(error, OSError):
            _abandon_stdout()
        return _report(*_explain(error), debug=debug)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs; what it parses has ``run``, the function that does the verb's work."""
    parser = Parser(
        prog="riff",
        description="A sentence becomes music: latent diffusion on spectrograms, with the model in the box.",
        epilog='example:\n  riff render "lo-fi hip hop, mellow electric piano, 84 bpm" -o lofi.wav\n\n' + EXIT_CODES,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"riff {riff.__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for add_verb in VERBS.values():
        add_verb(verbs)
    return parser


def _add_completion(verbs: Any) -> None:
    """Add ``riff completion``."""
    parser = add_command(
        verbs,
        "completion",
        _run_completion,
        help="print a script that completes riff's words in a shell",
        description="Print a script that completes riff's verbs and options in a shell.",
        examples="  riff completion bash > ~/.local/share/bash-completion/completions/riff\n"
        "  riff completion zsh > ~/.zfunc/_riff",
    )
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="the shell")


def _run_completion(args: argparse.Namespace) -> None:
    """Print the script."""
    import shtab

    print(shtab.complete(build_parser(), shell=args.shell))


def _check_verb(words: list[str]) -> None:
    """Name the nearest verb to one that does not exist."""
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        near = suggest(words[0], tuple(VERBS))
        raise RiffError(f"invalid choice: {words[0]!r} is not a verb; {near}(see riff --help)")


def _explain(error: Exception) -> tuple[str, int]:
    """The line for an error, and the exit code of its kind."""
    if isinstance(error, RiffError):
        return f"error: {shell_text(error)}", error.exit_code
    if is_out_of_memory(error):
        said = f" ({str(error)[:200]})" if str(error) else ""
        return f"error: not enough memory{said}; use fewer --bars or a smaller --duration", 5
    if isinstance(error, ImportError):
        return f"error: {error}; install riff again: python -m pip install .", 5
    if isinstance(error, OSError):
        return f"error: {_explain_disk(error)}", 5
    return f"error: {type(error).__name__}: {error} (a defect in riff; --debug shows where)", 1


def _explain_disk(error: OSError) -> str:
    """What the system says of a file, and what to do about it."""
    remedies = {
        errno.EROFS: "choose a folder on a disk that can be written",
        errno.EACCES: "choose another place, or change its permissions",
        errno.ENOSPC: "make room, or choose another disk",
    }
    remedy = remedies.get(error.errno or 0)
    return f"{error}; {remedy}" if remedy else str(error)


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
def _quiet_libraries(*, debug: bool, quiet: bool) -> Iterator[None]:
    """Show riff's own warnings as one line each unless ``quiet``, and keep other libraries' to ``--debug``."""
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
        own = Path(filename).is_relative_to(home) and not issubclass(category, DeprecationWarning)
        if own and not quiet:
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
