"""Does the music do what was asked? Tempo, key, genre and instruments, as asked and as heard."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from riff.errors import RiffError
from riff.evaluate.accuracy import detector_accuracy
from riff.evaluate.figures import Figure, mean_figure, share_figure
from riff.evaluate.key import detect_key, mirex_key_score
from riff.evaluate.sounds import Sound
from riff.evaluate.tempo import measure_tempo
from riff.evaluate.words import genres_in, instruments_in
from riff.music import canonical_keyscale, parse_bpm, parse_keyscale

if TYPE_CHECKING:
    from riff.evaluate.foreign import Clap
    from riff.tagger import Tagger, Tags

PRESENT = 0.5  # probability from which the tagger hears an instrument
MOST = 60.0  # seconds of a sound that are heard
OCTAVES = (1 / 3, 1 / 2, 1.0, 2.0, 3.0)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What was asked of a clip; None or empty where nothing was.

    Attributes:
        prompt: the words.
        bpm: beats per minute.
        keyscale: such as "F# minor".
        genres: names of the tagger, any of which the prompt means.
        instruments: for each instrument that the prompt names, those of the tagger that it may mean.
    """

    prompt: str = ""
    bpm: float | None = None
    keyscale: str | None = None
    genres: tuple[str, ...] = ()
    instruments: tuple[tuple[str, ...], ...] = ()


@dataclasses.dataclass(frozen=True)
class Heard:
    """What was measured of a clip; None where it could not be.

    Attributes:
        bpm: beats per minute, of which the metrical level is a guess.
        keyscale: such as "F# minor".
        genre: the tagger's most probable.
        instruments: those the tagger hears, with "drums".
    """

    bpm: float | None = None
    keyscale: str | None = None
    genre: str | None = None
    instruments: frozenset[str] = frozenset()


def asked_of(fields: Mapping[str, str]) -> Asked:
    """What was asked of a clip.

    Args:
        fields: any of prompt, bpm, keyscale and genre as text, such as a sound's metadata. A tempo or key of its own
            counts before one in the prompt; what cannot be read counts as not asked.
    """
    prompt = fields.get("prompt", "")
    return Asked(
        prompt,
        _number(fields.get("bpm")) or parse_bpm(prompt),
        _key(fields.get("keyscale")) or parse_keyscale(prompt),
        genres_in(fields.get("genre") or prompt),
        instruments_in(prompt),
    )


def hear(sound: Sound, tagger: Tagger | None = None) -> Heard:
    """Measure what can be asked for, in a minute of a longer sound: the middle, the first for genre and instruments.

    Args:
        sound: the clip.
        tagger: hears key, genre and instruments; without one the key is that of the pitch classes.
    """
    whole, sound = sound, sound.middle(MOST)
    try:
        bpm: float | None = measure_tempo(sound.waveform, sound.sample_rate)
    except RiffError:  # silence has no tempo
        bpm = None
    try:
        keyscale: str | None = detect_key(sound.waveform, sound.sample_rate, tagger=tagger, bpm=bpm)
    except RiffError:
        keyscale = None
    if tagger is None:
        return Heard(bpm, keyscale)
    try:
        tags = _tags(whole, tagger, bpm)
    except RiffError:
        return Heard(bpm, keyscale)
    heard = frozenset(name for name, chance in tags.instruments.items() if chance >= PRESENT)
    return Heard(bpm, keyscale, tags.genre, heard)


def _tags(sound: Sound, tagger: Tagger, measured: float | None) -> Tags:
    """The tagger's verdict on the first minute.

    It needs to know where bars begin. What riff drew begins with one, at a tempo that it says; elsewhere the start is
    tried at the measured tempo, and the downbeat that is tracked, and the verdict that is surer of its genre counts.
    """
    first = sound.waveform[..., : round(MOST * sound.sample_rate)]

    def on_grid(bpm: float) -> Tags:
        image = tagger.picture(first, sound.sample_rate, bpm=min(max(bpm, 20.0), 400.0), downbeat=0.0)
        return tagger.tag_pictures(image[None])[0]

    told = _number(sound.metadata.get("bpm"))
    if told is not None and "model" in sound.metadata and "task" not in sound.metadata:
        return on_grid(told)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no beat was found is no news here
        verdicts = [on_grid(measured or 120.0), tagger.tag(first, sound.sample_rate)]
    return max(verdicts, key=lambda tags: tags.genres[tags.genre])


def obedience(asked: Sequence[Asked], heard: Sequence[Heard]) -> list[Figure]:
    """Shares of what was asked that was heard; what was not asked counts in no share.

    Args:
        asked: one of each clip.
        heard: of the same clips, in the same order.

    Returns:
        Figures, each with its detector's own accuracy; those of which nothing was asked are NaN with n = 0.
    """
    pairs = list(zip(asked, heard, strict=True))
    told = "of clips of which a {} was asked; one in which none can be heard is a miss."
    figures = [
        _tempo_share("Tempo within 1 %", pairs, 0.01, (1.0,), "Measured beats per minute within 1 % " + told),
        _tempo_share("Tempo within 4 %", pairs, 0.04, (1.0,), "As MIREX's accuracy 1, within 4 %, " + told),
        _tempo_share("Tempo within 1 %, any octave", pairs, 0.01, OCTAVES, "At 1/3, 1/2, 2 or 3 times it too, " + told),
        _tempo_share(
            "Tempo within 4 %, any octave", pairs, 0.04, OCTAVES, "MIREX's accuracy 2, at 1/3, 1/2, 2 or 3 too, " + told
        ),
        share_figure("Key exact", _key_scores(pairs, 1.0), "The measured key is the asked one, " + told.format("key")),
        mean_figure(
            "Key, MIREX score",
            [_mirex(wanted, found) for wanted, found in pairs if wanted.keyscale],
            "",
            "1 for the asked key, 0.5 a fifth above, 0.3 the relative and 0.2 the parallel one (MIREX 2005).",
        ),
        share_figure(
            "Genre (riff's tagger)",
            [found.genre in wanted.genres for wanted, found in pairs if wanted.genres and found.genre],
            "The tagger's most probable genre is one that the prompt names; only genres that it knows are counted.",
        ),
        *_instrument_figures(pairs),
    ]
    return [dataclasses.replace(figure, detector=detector_accuracy(figure.name)) for figure in figures]


def text_scores(clap: Clap, sounds: Sequence[Sound], prompts: Sequence[str]) -> Figure:
    """Cosine of each sound and its prompt in CLAP's space, averaged.

    Args:
        clap: a loaded CLAP.
        sounds: clips.
        prompts: of the same clips, in the same order; clips without one are left out.
    """
    pairs = [(sound, prompt) for sound, prompt in zip(sounds, prompts, strict=True) if prompt.strip()]
    texts = list(clap.read([prompt for _, prompt in pairs])) if pairs else []
    cosines = [float(clap.hear(sound) @ text) for (sound, _), text in zip(pairs, texts, strict=True)]
    definition = f"Mean cosine of sound and prompt in {clap.name} (Wu et al. 2023); compare within it only."
    return mean_figure(f"Text score ({clap.name})", cosines, "", definition)


def _tempo_share(
    name: str, pairs: list[tuple[Asked, Heard]], tolerance: float, levels: tuple[float, ...], definition: str
) -> Figure:
    hits = [
        found.bpm is not None and any(abs(found.bpm * level / wanted.bpm - 1.0) <= tolerance for level in levels)
        for wanted, found in pairs
        if wanted.bpm is not None
    ]
    return share_figure(name, hits, definition.format("tempo"))


def _mirex(wanted: Asked, found: Heard) -> float:
    return mirex_key_score(found.keyscale, wanted.keyscale) if found.keyscale and wanted.keyscale else 0.0


def _key_scores(pairs: list[tuple[Asked, Heard]], least: float) -> list[bool]:
    return [_mirex(wanted, found) >= least for wanted, found in pairs if wanted.keyscale]


def _instrument_figures(pairs: list[tuple[Asked, Heard]]) -> list[Figure]:
    heard = [(wanted, found) for wanted, found in pairs if wanted.instruments and found.genre]
    each = [bool(found.instruments & set(names)) for wanted, found in heard for names in wanted.instruments]
    every = [all(found.instruments & set(names) for names in wanted.instruments) for wanted, found in heard]
    known = "only instruments that it knows are counted."
    return [
        share_figure("Instruments (riff's tagger)", each, f"An instrument that the prompt names is heard; {known}"),
        share_figure("All instruments (riff's tagger)", every, f"Every one that the prompt names is heard; {known}"),
    ]


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _key(text: str | None) -> str | None:
    try:
        return canonical_keyscale(text) if text else None
    except RiffError:
        return None
