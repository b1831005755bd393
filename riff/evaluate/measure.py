"""One file of an evaluation, measured in whichever process it falls to."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Literal

import numpy as np

from riff.diffusion.checkpoint import load_checkpoint
from riff.evaluate.copies import BANDS, FRAMES, digest, fingerprint, sketch
from riff.evaluate.embeddings import load_clap, load_embedding
from riff.evaluate.figures import Figure
from riff.evaluate.form import Form, measure_form
from riff.evaluate.hygiene import Hygiene, inspect
from riff.evaluate.obedience import Detected, Requested, detect, requested_of, text_scores
from riff.evaluate.roundtrip import Trip, round_trip
from riff.evaluate.sounds import Sound, load_sound
from riff.music.tagger import Tagger
from riff.utils.errors import RiffError

Role = Literal["generated", "reference", "training", "round trip"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What all processes need to know.

    Attributes:
        embeddings: by which sets are compared.
        checkpoint: whose latents are meant; None is riff-mini.
        download: whether weights of others may be fetched.
        clap: where CLAP's weights are if its text score is requested; "" is the local cache.
        trips: whether sounds make the round trip.
    """

    embeddings: tuple[str, ...] = ()
    checkpoint: str | None = None
    download: bool = False
    clap: str | None = None
    trips: bool = False


@dataclasses.dataclass(frozen=True)
class Task:
    """One file, why it is measured, and what was requested of it (None: what it says itself)."""

    path: Path
    role: Role
    requested: dict[str, str] | None = None


@dataclasses.dataclass
class Measured:
    """What came of a file.

    Attributes:
        path: the file.
        role: why it was measured.
        problem: why it could not be; all else is then empty.
        metadata: what it says of itself, or the list says of it.
        requested: what was requested, as :class:`riff.evaluate.obedience.Requested`.
        detected: what was detected, as :class:`riff.evaluate.obedience.Detected`.
        vectors: features by the name of the embedding.
        unembedded: why there are none.
        text_score: CLAP's, of this clip alone; None without it.
        hygiene: as :class:`riff.evaluate.hygiene.Hygiene`.
        form: as :class:`riff.evaluate.form.Form`.
        landmarks: as :func:`riff.evaluate.copies.fingerprint` finds them.
        sketch: as :func:`riff.evaluate.copies.sketch` draws it.
        digest: of the samples.
        trips: as :class:`riff.evaluate.roundtrip.Trip`, one a rung.
    """

    path: Path
    role: Role
    problem: str = ""
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    requested: Requested | None = None
    detected: Detected | None = None
    vectors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    unembedded: str = ""
    text_score: Figure | None = None
    hygiene: Hygiene | None = None
    form: Form | None = None
    landmarks: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 2), np.int64))
    sketch: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((BANDS, FRAMES), np.float32))
    digest: str = ""
    trips: list[Trip] = dataclasses.field(default_factory=list)


class Meter:
    """The measuring of one process: networks are loaded once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.embeddings = [load_embedding(name, plan.checkpoint, download=plan.download) for name in plan.embeddings]
        self.tagger = Tagger.load()
        self.ladder = load_checkpoint(plan.checkpoint) if plan.trips else None
        self.clap = None if plan.clap is None else load_clap(plan.clap, download=plan.download)

    def __call__(self, task: Task) -> Measured:
        """Measure a file; one that cannot be read has a problem, and no exception leaves here."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._measure(task)
        except RiffError as error:
            return Measured(task.path, task.role, str(error))
        except Exception as error:  # a decoder's or a library's; one file must not end the others
            return Measured(task.path, task.role, f"{task.path}: {type(error).__name__}: {error}")

    def _measure(self, task: Task) -> Measured:
        sound = load_sound(task.path)
        measured = Measured(task.path, task.role, metadata={**sound.metadata, **(task.requested or {})})
        if task.role in ("generated", "reference"):
            self._embed(sound, measured)
            measured.hygiene = inspect(sound)
            measured.form = measure_form(sound)
        if task.role == "round trip" and self.ladder is not None:
            pipeline, config, _ = self.ladder
            measured.trips = round_trip(sound, config, vae=pipeline.vae)
        if task.role != "round trip":
            measured.landmarks = fingerprint(sound)
            measured.sketch = sketch(sound)
        if task.role == "generated":
            measured.digest = digest(sound)
            self._obey(sound, task, measured)
        return measured

    def _embed(self, sound: Sound, measured: Measured) -> None:
        try:
            measured.vectors = {embedding.name: embedding.row(sound) for embedding in self.embeddings}
        except RiffError as error:  # silence, or a click; its hygiene can still be measured
            measured.unembedded = str(error)

    def _obey(self, sound: Sound, task: Task, measured: Measured) -> None:
        measured.requested = _requested(sound.metadata, task.requested)
        measured.detected = detect(sound, self.tagger)
        if self.clap is not None and measured.requested.prompt:
            measured.text_score = text_scores(self.clap, [sound], [measured.requested.prompt])


def make_meter(plan: Plan) -> Meter:
    """For :func:`riff.utils.parallel.run_all`; raises ModelError where weights are missing."""
    return Meter(plan)


def _requested(own: dict[str, str], listed: dict[str, str] | None) -> Requested:
    """What was requested; where the list says nothing of tempo or key, in a field or in the prompt, the file does."""
    if listed is None:
        return requested_of(own)
    requested, before = requested_of({"prompt": own.get("prompt", ""), **listed}), requested_of(own)
    return dataclasses.replace(
        requested, bpm=requested.bpm or before.bpm, keyscale=requested.keyscale or before.keyscale
    )
