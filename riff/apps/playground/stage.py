"""What every tab works with: the model, the clips, and work that can be followed, stopped and reported."""

import contextlib
import dataclasses
import logging
import queue
import re
import secrets
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import gradio as gr
from torch import Tensor

from riff.diffusion.sampling import StepCallback
from riff.pipeline import RiffPipeline
from riff.tasks.clip import Clip
from riff.utils.errors import RiffError, interruptible, is_out_of_memory
from riff.utils.pages import render

FORMATS = ("wav", "flac", "ogg", "mp3", "png")
_NAME = re.compile(rf"([0-9a-f]{{16}})\.({'|'.join(FORMATS)})")
_LOOK_AGAIN = 0.1  # seconds after which a stop is noticed
T = TypeVar("T")
R = TypeVar("R")
Make = Callable[[StepCallback], Iterator[T]]


class Shelf:
    """Clips and other files by id, the oldest of which make room for new ones.

    Clips are in memory, and written to a folder of the shelf's own when a file is requested. A file's name on the page
    is ``ID.FORMAT`` and never a path, so that nothing else can be requested.
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
                for path in Path(self._folder.name).glob(f"{oldest}*"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
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

    def named_file(self, name: str) -> Path:
        """A clip as a WAV file whose name says what it is.

        Raises:
            RiffError: there is no such clip.
        """
        folder = Path(self._folder.name) / f"{name}-named"
        title = file_name(self.get(name))
        folder.mkdir(exist_ok=True)
        return Path(shutil.copyfile(self.file(f"{name}.wav"), folder / f"{title}.wav"))

    def close(self) -> None:
        """Remove the files."""
        self._folder.cleanup()


def file_name(clip: Clip) -> str:
    """A name for a saved file, without its suffix."""
    words = re.findall(r"[a-z0-9]+", clip.prompt.lower())
    return "-".join([*words[:6], str(clip.seed)])[:60] or "riff"


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


class Stopped(Exception):
    """The work was stopped from the page."""


class Sessions:
    """The work of each browser session, and the one model that they share."""

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
        work = _Work(make, event, self._model)
        threading.Thread(target=work.run, name="riff-play", daemon=True).start()
        try:
            yield from work.follow()
        finally:
            event.set()
            if self._stops.get(session) is event:
                del self._stops[session]


class _Work(Generic[T]):
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
            with self.model, self._noting(), interruptible(self._check):
                self.last = time.monotonic()
                for value in self.make(self._step):
                    self._check()
                    self.made.put(Part(value))
            self.made.put(None)
        except BaseException as error:  # for the one who follows
            self.made.put(error)

    def follow(self) -> Iterator[Progress | Part[T]]:
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


@dataclasses.dataclass(frozen=True)
class Stage:
    """One page's model and clips.

    Attributes:
        pipe: the model.
        loaded: what the pipeline was loaded from: the model, None for riff-mini, then a path and a weight of each LoRA.
        shelf: the clips that were made.
        sessions: what is being made.
        parts: what is played of a walk or of endless music while it is made.
    """

    pipe: RiffPipeline
    model: str | None = None
    loras: tuple[tuple[str, float], ...] = ()
    shelf: Shelf = dataclasses.field(default_factory=Shelf)
    sessions: Sessions = dataclasses.field(default_factory=Sessions)
    parts: Shelf = dataclasses.field(default_factory=lambda: Shelf(limit=16))

    def perform(
        self,
        session: str,
        read: Callable[[], R],
        make: Callable[[R, StepCallback], Iterator[Clip]],
        show: Callable[[R, Clip, str, tuple[str, ...]], str],
    ) -> Iterator[tuple[object, object]]:
        """Make clips and report to a tab.

        Args:
            session: whose work it is.
            read: reads the request from the fields; it may raise RiffError.
            make: makes the clips of a request.
            show: from the request, a clip, its id and what was warned of, what the page shows.

        Yields:
            Status and result, each for its component. An error is one line of the status.
        """
        kept, notes = gr.skip(), ()  # type: tuple[object, tuple[str, ...]]
        yield bar(Progress(0, 0)), kept
        try:
            request = read()
            for found in self.sessions.run(session, lambda callback: make(request, callback)):
                if isinstance(found, Part):
                    yield kept, show(request, found.value, self.shelf.put(found.value), notes)
                else:
                    notes = found.notes
                    yield bar(found), kept
            yield "", kept
        except Stopped:
            yield render("apps/playground/templates/status.html", message="Stopped.", wrong=False), kept
        except Exception as error:
            yield problem(error), kept

    def stop(self, request: gr.Request) -> None:
        """Stop what is done for a session."""
        self.sessions.stop(str(request.session_hash))


def problem(error: BaseException) -> str:
    """An error as one line of the page; what is a defect is logged as well."""
    if not isinstance(error, RiffError) and not is_out_of_memory(error):
        logging.getLogger("riff").error("the page failed", exc_info=error)
    return render("apps/playground/templates/status.html", message=error_line(error), wrong=True)


def error_line(error: BaseException) -> str:
    """An error as one line."""
    if isinstance(error, RiffError):
        return " ".join(str(error).split())
    if is_out_of_memory(error):
        return "not enough memory; use fewer bars"
    return f"{type(error).__name__}: {' '.join(str(error).split())} (a defect in riff)"


def bar(progress: Progress) -> str:
    """How far it is, and when it will be done."""
    share = progress.done / progress.total if progress.total else 0.0
    if 0.0 < share < 1.0:
        text = f"Step {progress.done} of {progress.total}"
        if progress.left is not None:
            text += f", about {max(1, round(progress.left))} s left"
    else:
        text = "Turning the spectrogram into sound" if share else "Getting ready"
    return render(
        "apps/playground/templates/progress.html", text=text, percent=round(100 * share), busy=not 0.0 < share < 1.0
    )
