"""What every tab works with: the model, the shelf, and the one way in which work is followed, stopped and reported."""

import contextlib
import dataclasses
import html
import json
import queue
import re
import secrets
import shlex
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import gradio as gr
from torch import Tensor

from riff.diffusion.sampling import StepCallback
from riff.pipeline import RiffPipeline
from riff.tasks.clip import Clip
from riff.utils.errors import RiffError, is_out_of_memory

EMPTY = '<div class="riff-empty"><span>{}</span></div>'


# WAS riff/playground/shelf.py: The clips that a page can play and save: kept in memory, written to a folder of
# its own when they are asked for.


class Shelf:
    """Clips and other files by id, the oldest of which make room for new ones.

    A file's name on the page is ``ID.FORMAT`` and never a path, so that nothing else can be asked for.
    """

    def __init__(self, limit: int = 48) -> None:
        self.limit = limit
        self._folder = tempfile.TemporaryDirectory(prefix="riff-play-")
        self._clips: dict[str, Clip | None] = {}  # None has files only
        self._lock = threading.Lock()

    def put(self, clip: Clip) -> str:
        """Keep a clip; returns its id."""
        return self._add(clip, {})

    def put_files(self, writers: Mapping[str, Callable[[Path], object]]) -> str:
        """Keep files that are no clip; returns their id.

        Args:
            writers: of each format, what writes it to a path.
        """
        return self._add(None, writers)

    def _add(self, clip: Clip | None, writers: Mapping[str, Callable[[Path], object]]) -> str:
        name = secrets.token_hex(8)
        for kind, write in writers.items():
            write(Path(self._folder.name) / f"{name}.{kind}")
        with self._lock:
            self._clips[name] = clip
            while len(self._clips) > self.limit:
                oldest = next(iter(self._clips))
                del self._clips[oldest]
                for path in Path(self._folder.name).glob(f"{oldest}.*"):
                    path.unlink(missing_ok=True)
        return name

    def __contains__(self, name: str) -> bool:
        return name in self._clips

    def get(self, name: str) -> Clip:
        """The clip with this id.

        Raises:
            RiffError: it has made room for newer ones.
        """
        clip = self._clips.get(name)
        if clip is None:
            raise RiffError("that clip is no longer kept; make it again")
        return clip

    def file(self, name: str) -> Path:
        """A clip as a file.

        Args:
            name: ``ID.wav``, or another of :data:`FORMATS`.

        Raises:
            RiffError: there is no such clip or format.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise RiffError(f"a clip's file is named ID.FORMAT, with a format of {', '.join(FORMATS)}")
        path = Path(self._folder.name) / name
        with self._lock:
            return path if path.exists() else self.get(found[1]).save(path, overwrite=True)

    def close(self) -> None:
        """Remove the files."""
        self._folder.cleanup()


# WAS riff/playground/code.py: What was asked for, as Python and as a shell command, to be copied.


@dataclasses.dataclass(frozen=True)
class Source:
    """What makes the music, as it was asked for.

    Attributes:
        model: as ``from_pretrained`` takes it; None is riff-mini.
        loras: file or folder and weight of each LoRA on top.
    """

    model: str | None = None
    loras: tuple[tuple[str, float], ...] = ()

    def python(self) -> str:
        """The lines that load it."""
        model = "" if self.model is None else _python(self.model)
        lines = [f"pipe = RiffPipeline.from_pretrained({model})"]
        lines += [f"pipe.load_lora({_python(path)}, weight={weight})" for path, weight in self.loras]
        return "\n".join(lines) + "\n"

    def shell(self) -> list[str]:
        """The options that load it."""
        words = [] if self.model is None else ["--model", self.model]
        # With its weight always, since a colon in a file's name would else be taken for one.
        return words + [word for path, weight in self.loras for word in ("--lora", f"{path}:{weight}")]


# WAS riff/playground/work.py: One piece of work at a time, done aside, so that the page hears how far it is and
# can stop it.

T = TypeVar("T")
Make = Callable[[StepCallback], Iterator[T]]


@dataclasses.dataclass(frozen=True)
class Part(Generic[T]):
    """Something that is done, of which more may come."""

    value: T


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a piece of work is.

    Attributes:
        done: denoising steps done.
        total: of how many; 0 while nothing is known.
        step_s: seconds that a step took, in the mean.
        since_s: seconds since the last one ended.
        notes: what was warned of.
    """

    done: int
    total: int
    step_s: float = 0.0
    since_s: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def left(self) -> float | None:
        """Seconds of denoising that are left; None before the first step is done."""
        return max(self.step_s * (self.total - self.done) - self.since_s, 0.0) if self.done else None


class Works:
    """Who works for which session, and the one model that they share."""

    def __init__(self) -> None:
        self._model = threading.Lock()
        self._stops: dict[str, threading.Event] = {}

    def stop(self, session: str) -> None:
        """Stop what is done for a session, if anything is."""
        event = self._stops.get(session)
        if event is not None:
            event.set()

    def run(self, session: str, make: Make[T]) -> Iterator[Progress | Part[T]]:
        """Do a piece of work in a thread of its own.

        Args:
            session: whose it is; an earlier one of the same session is stopped.
            make: given the callback of the denoising steps, makes one thing or several.

        Yields:
            Every tenth of a second how far it is, and each thing as it is made.

        Raises:
            Stopped: by :meth:`stop`, within two tenths of a second; the thread ends at its next step.
            RiffError: what ``make`` raised.
        """
        self.stop(session)
        event = self._stops[session] = threading.Event()
        doing = _Doing(make, event, self._model)
        threading.Thread(target=doing.run, name="riff-play", daemon=True).start()
        try:
            yield from doing.look()
        finally:
            event.set()
            if self._stops.get(session) is event:
                del self._stops[session]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One page's model and clips.

    Attributes:
        pipe: what makes music.
        source: what the pipeline was loaded from.
        shelf: the clips that were made.
        works: what is being made.
        parts: what is heard of a walk or of endless music while it is made.
    """

    pipe: RiffPipeline
    source: Source
    shelf: Shelf
    works: Works
    parts: Shelf

    def perform(
        self,
        session: str,
        make: Callable[[StepCallback], Iterator[Clip]],
        show: Callable[[Clip, str, tuple[str, ...]], str],
    ) -> Iterator[tuple[object, object, object]]:
        """Make clips and tell a tab about it.

        Args:
            session: whose work it is.
            make: what makes them.
            show: from a clip, its id and what was warned of, what the page shows.

        Yields:
            Status, result and the clip's id, each for its component.

        Raises:
            gr.Error: the one line that says what is wrong.
        """
        kept = gr.skip()
        notes: tuple[str, ...] = ()
        yield bar(Progress(0, 0)), kept, kept
        try:
            for found in self.works.run(session, make):
                if isinstance(found, Part):
                    name = self.shelf.put(found.value)
                    yield kept, show(found.value, name, notes), name
                else:
                    notes = found.notes
                    yield bar(found), kept, kept
            yield "", kept, kept
        except Stopped:
            yield '<p class="riff-progress" role="status">Stopped.</p>', kept, kept
        except Exception as error:
            yield problem(error), kept, kept
            raise failure(error) from error

    def stop(self, request: gr.Request) -> None:
        """Stop what is done for a session."""
        self.works.stop(str(request.session_hash))


def failure(error: BaseException) -> gr.Error:
    """What Gradio shows of an error; a traceback only where it is a defect."""
    return gr.Error(html.escape(human(error)), duration=8, title="That did not work",
                    print_exception=not isinstance(error, RiffError))  # fmt: skip


def problem(error: BaseException) -> str:
    """An error as one line of the page."""
    return f'<p class="riff-error" role="alert">{html.escape(human(error))}</p>'


def bar(progress: Progress) -> str:
    """How far it is, and when it will be done."""
    share = progress.done / progress.total if progress.total else 0.0
    if 0.0 < share < 1.0:
        said = f"Drawing: step {progress.done} of {progress.total}"
        if progress.left is not None:
            said += f", about {max(1, round(progress.left))} s left"
    else:
        said = "Turning the picture into sound" if share else "Getting ready"
    busy = "" if 0.0 < share < 1.0 else " busy"
    width = f' style="width:{100 * share:.0f}%"' if not busy else ""
    return (
        f'<div class="riff-progress{busy}" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * share:.0f}" aria-label="{said}"><div><i{width}></i></div><span>{said}</span></div>'
    )


def python_code(call: str, arguments: dict[str, Any], *, source: Source, result: str = "") -> str:
    """A script that makes a clip again.

    Args:
        call: of the pipeline: "" is a plain clip, else "walk", "remix", ...
        arguments: by name; those that are None are left out, the first is given by place.
        source: what it is made with.
        result: of the call that is the clip, such as ``.clips[0]``.
    """
    given = [(name, value) for name, value in arguments.items() if value is not None]
    words = [_python(value) if index == 0 else f"{name}={_python(value)}" for index, (name, value) in enumerate(given)]
    line = f"clip = pipe{'.' if call else ''}{call}({', '.join(words)}){result}"
    if len(line) > 88:
        body = "".join(f"    {word},\n" for word in words)
        line = f"clip = pipe{'.' if call else ''}{call}(\n{body}){result}"
    return f'from riff import RiffPipeline\n\n{source.python()}{line}\nclip.save("clip.wav")\n'


def shell_code(verb: str, words: list[str], options: dict[str, Any], *, source: Source) -> str:
    """The command that makes a clip again.

    Args:
        verb: of ``riff``.
        words: prompts and files.
        options: with their dashes; None and False are left out, True is the option alone, a tuple several words.
        source: what it is made with.
    """
    line = ["riff", verb, *words]
    for option, value in options.items():
        if value is None or value is False:
            continue
        line.append(option)
        if value is not True:
            line += [_shell(each) for each in (value if isinstance(value, tuple) else (value,))]
    return shlex.join([*line, *source.shell(), "-o", "clip.wav"]) + "\n"


def _python(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _shell(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e5 else str(value)


FORMATS = ("wav", "flac", "ogg", "mp3", "png")
_NAME = re.compile(rf"([0-9a-f]{{16}})\.({'|'.join(FORMATS)})")
_LOOK_AGAIN = 0.1  # seconds after which a stop is noticed


class Stopped(Exception):
    """Somebody asked to stop."""


class _Doing(Generic[T]):
    def __init__(self, make: Make[T], stop: threading.Event, model: threading.Lock) -> None:
        self.make, self.stop, self.model = make, stop, model
        self.made: queue.SimpleQueue[Part[T] | BaseException | None] = queue.SimpleQueue()
        self.done, self.total, self.step_s = 0, 0, 0.0
        self.first = self.last = time.monotonic()  # when the first and the last step ended, or all began
        self.caught: list[warnings.WarningMessage] = []

    @property
    def progress(self) -> Progress:
        notes = dict.fromkeys(str(each.message) for each in self.caught if each.category is UserWarning)
        return Progress(self.done, self.total, self.step_s, time.monotonic() - self.last, tuple(notes))

    def run(self) -> None:
        """What the thread does."""
        try:
            with self.model, self._noting():
                self.last = time.monotonic()
                for value in self.make(self._step):
                    self._check()
                    self.made.put(Part(value))
            self.made.put(None)
        except BaseException as error:  # handed to the one who looks
            self.made.put(error)

    def look(self) -> Iterator[Progress | Part[T]]:
        """What the page does meanwhile."""
        while True:
            self._check()
            try:
                found = self.made.get(timeout=_LOOK_AGAIN)
            except queue.Empty:
                yield self.progress
                continue
            if found is None:
                return
            if isinstance(found, BaseException):
                raise found
            yield self.progress
            yield found

    def _step(self, step: int, steps: int, latents: Tensor) -> Tensor | None:
        self._check()
        now = time.monotonic()
        if step == 0:  # it takes longer than the others, but is all that is known
            self.first = now
        self.step_s = (now - self.first) / step if step else now - self.last
        self.last, self.done, self.total = now, step + 1, steps
        return None

    def _check(self) -> None:
        if self.stop.is_set():
            raise Stopped

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Keep riff's warnings for the page. The model's lock keeps others from doing the same at once."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            self.caught = caught
            yield


def human(error: BaseException) -> str:
    """An error as one line for the page."""
    if isinstance(error, RiffError):
        return " ".join(str(error).split())
    if is_out_of_memory(error):
        return "not enough memory; use fewer bars"
    return f"{type(error).__name__}: {' '.join(str(error).split())} (a defect in riff)"
