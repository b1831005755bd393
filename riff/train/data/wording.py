"""Putting measured attributes into the words of riff-mini's captions: comma tags, a bare row, or a sentence."""

import dataclasses
import functools
import math
import random
import re
from pathlib import Path

import numpy as np
from torch import Tensor

from riff.audio.channels import mono_row
from riff.evaluate.embeddings import Clap
from riff.evaluate.sounds import Sound
from riff.music.theory import parse_bpm, parse_key

# How often each is said: as often as riff-mini's own captions do.
RATES = {"genre": 0.8, "adjectives": 0.3, "instruments": 0.65, "drums": 0.3, "key": 0.45, "tempo": 0.45}
WORD_RATE = 0.35  # of a tempo in words where it is said at all
PACES = {
    "slow": ("slow", "unhurried", "leisurely", "downtempo"),
    "mid-tempo": ("mid-tempo", "moderate"),
    "fast": ("fast", "uptempo", "quick", "brisk"),
}
ADJECTIVES = {
    "quiet": ("quiet", "soft"),
    "loud": ("loud", "powerful"),
    "bright": ("bright",),
    "warm": ("warm", "mellow"),
    "dark": ("dark", "moody"),
    "sparse": ("sparse", "minimal", "spacious", "uncluttered"),
    "busy": ("busy", "dense", "layered", "full"),
}
DRUMS = {True: ("with drums", "with a beat", "with percussion"), False: ("no drums", "without drums", "drumless")}
BPM_FORMS = ("{bpm} bpm", "{bpm} bpm", "{bpm} BPM")
NOUNS = ("music", "piece", "track", "song", "instrumental")
LINKS = ("with {}", "featuring {}", "with {}")
# What the user's words may speak of; any of these words leaves the matching attribute out.
_MENTIONS = {
    "bpm": "tempo slow slowly fast uptempo midtempo downtempo moderate quick brisk rapid leisurely largo adagio "
    "andante allegro presto",
    "key": "major minor",
    "drums": "drum drums drummer drumless beat beats beatless percussion percussive kit snare kick cymbals acapella "
    "cappella",
    "instruments": "piano pianist keys keyboard rhodes wurlitzer guitar guitars guitarist bass violin violins viola "
    "cello strings orchestra fiddle brass horn horns trumpet trombone sax saxophone flute clarinet oboe bassoon "
    "woodwind organ accordion harmonica synth synths synthesizer pad pads vibraphone marimba xylophone mallets bells "
    "harp banjo koto sitar choir voice voices vocal vocals singer singing ukulele mandolin solo unaccompanied",
    "adjectives": "quiet soft loud powerful bright warm mellow dark moody sparse minimal busy dense",
}


@dataclasses.dataclass(frozen=True)
class Attributes:
    """What may be said, each empty or None where it is not to be.

    Attributes:
        genre: in words.
        adjectives: keys of :data:`ADJECTIVES`.
        instruments: in words.
        drums: whether there are any.
        key: such as "F# minor".
        bpm: beats per minute.
        pace: a key of :data:`PACES`.
    """

    genre: str = ""
    adjectives: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    drums: bool | None = None
    key: str = ""
    bpm: float | None = None
    pace: str = ""


def without_what_is_said(attributes: Attributes, words: str) -> Attributes:
    """The attributes of which the user's words say nothing; beside any words there is no genre."""
    if not words.strip():
        return attributes
    found = set(re.findall(r"[a-z]+", words.lower()))
    spoken = {name for name, mentions in _MENTIONS.items() if found & set(mentions.split())}
    spoken |= ({"bpm"} if parse_bpm(words) is not None else set()) | ({"key"} if parse_key(words) else set())
    nothing = Attributes()
    return dataclasses.replace(attributes, genre="", **{name: getattr(nothing, name) for name in spoken})


def drop(attributes: Attributes, rng: random.Random) -> Attributes:
    """Leave out attributes at random."""
    says = {name: rng.random() < rate for name, rate in RATES.items()}
    count = rng.choice((1, 1, 2, 2, 3))
    return Attributes(
        genre=attributes.genre if says["genre"] else "",
        adjectives=tuple(word for word in attributes.adjectives if rng.random() < RATES["adjectives"]),
        instruments=attributes.instruments[:count] if says["instruments"] else (),
        drums=attributes.drums if says["drums"] else None,
        key=attributes.key if says["key"] else "",
        bpm=attributes.bpm if says["tempo"] else None,
        pace=attributes.pace if says["tempo"] else "",
    )


def tags(words: str, attributes: Attributes) -> str:
    """Everything as comma tags in a fixed order and the plainest words: "waltz, warm, piano, no drums, A minor"."""
    attributes = _unnamed(attributes)
    drums = "" if attributes.drums is None else DRUMS[attributes.drums][0]
    bpm = "" if attributes.bpm is None else BPM_FORMS[0].format(bpm=round(attributes.bpm))
    rest = (*attributes.adjectives, *attributes.instruments, drums, attributes.key, bpm)
    return _joined(_head(words), attributes.genre, *rest)


def compose(words: str, attributes: Attributes, rng: random.Random) -> str:
    """One caption of the attributes; empty if there is nothing to say.

    Args:
        words: the user's, which come first.
        attributes: to be said, all of them.
        rng: source of every choice.
    """
    head, attributes = _head(words), _unnamed(attributes)
    adjectives = [rng.choice(ADJECTIVES[word]) for word in attributes.adjectives]
    number, tempo = _tempo(attributes, rng)
    drums = "" if attributes.drums is None else rng.choice(DRUMS[attributes.drums])
    style = rng.random()
    if style < 0.45:
        middle = _said(*adjectives, *attributes.instruments, drums, tempo)
        rng.shuffle(middle)
        ends = _said(attributes.key, number)
        rng.shuffle(ends)
        return _joined(head, attributes.genre, *middle, *ends)
    if style < 0.6:
        instruments = " and ".join(attributes.instruments[:2])
        front = " ".join(_said(*adjectives, tempo, attributes.genre, instruments))
        return _joined(head, front, drums, attributes.key, number)
    return _sentence(head, attributes, _said(*adjectives, tempo), drums=drums, number=number, rng=rng)


def _sentence(
    head: str, attributes: Attributes, adjectives: list[str], *, drums: str, number: str, rng: random.Random
) -> str:
    """As in "a warm slow piece with piano and bass in A minor at 84 bpm"."""
    played = _listing(attributes.instruments)
    clauses = [rng.choice(LINKS).format(played)] if played else []
    clauses += [f"in {attributes.key}"] if attributes.key else []
    clauses += [f"at {number}"] if number else []
    if head:
        return _joined(head, *adjectives, " ".join(clauses), drums)
    if not (adjectives or attributes.genre or clauses or drums):
        return ""
    subject = " ".join([*adjectives, attributes.genre or rng.choice(NOUNS)])
    return _joined(" ".join([subject, *clauses]), drums)


def _tempo(attributes: Attributes, rng: random.Random) -> tuple[str, str]:
    """A tempo in numbers or, sometimes, in a word."""
    if attributes.bpm is None:
        return "", ""
    if attributes.pace and rng.random() < WORD_RATE:
        return "", rng.choice(PACES[attributes.pace])
    return rng.choice(BPM_FORMS).format(bpm=round(attributes.bpm)), ""


def _unnamed(attributes: Attributes) -> Attributes:
    """Without the instruments that the genre names: "drum and bass" has a bass."""
    genre = attributes.genre.split()
    return dataclasses.replace(
        attributes, instruments=tuple(name for name in attributes.instruments if name not in genre)
    )


def _head(words: str) -> str:
    """The user's words on one line."""
    return " ".join(words.split())


def _listing(names: tuple[str, ...]) -> str:
    return " and ".join(_said(", ".join(names[:-1]), names[-1])) if names else ""


def _said(*texts: str) -> list[str]:
    return [text for text in texts if text]


def _joined(first: str, *texts: str) -> str:
    """Tags with commas between, before which the first loses its stop."""
    rest = _said(*texts)
    return ", ".join(_said(first.rstrip(" .,;"), *rest)) if rest else first


# Tags for a clip from CLAP, which knows sounds and words in one space, where its weights are at hand.

# What may be said: of each row the likeliest word, if it is likely enough.
KINDS = {
    "genre": (
        "ambient", "blues", "bossa nova", "classical", "country", "disco", "drum and bass", "electronic", "flamenco",
        "folk", "funk", "gospel", "hip hop", "house", "jazz", "latin", "metal", "pop", "punk", "ragtime", "reggae",
        "rock", "soul", "swing", "synthwave", "techno", "trance", "waltz",
    ),
    "instrument": (
        "acoustic guitar", "accordion", "banjo", "bells", "brass", "cello", "choir", "drums", "electric guitar",
        "electric piano", "flute", "harp", "harpsichord", "marimba", "organ", "piano", "saxophone", "singing",
        "strings", "synthesizer", "trumpet", "vibraphone", "violin",
    ),
    "mood": ("aggressive", "calm", "dark", "dreamy", "energetic", "epic", "happy", "mysterious", "romantic", "sad"),
}  # fmt: skip
SENTENCES = {"genre": "{} music", "instrument": "the sound of a {}", "mood": "{} music"}
SCALE = 100.0  # what CLAP multiplies cosines by before its softmax
LEAST = 0.5  # share of the softmax below which nothing is said


@functools.lru_cache(maxsize=1)
def _loaded(source: str) -> tuple[Clap, dict[str, np.ndarray]]:
    clap = Clap.load(source)
    return clap, {kind: clap.read([SENTENCES[kind].format(word) for word in words]) for kind, words in KINDS.items()}


def check_clap(source: str) -> None:
    """Load CLAP once, before anything is cut.

    Raises:
        ModelError: it is not there.
    """
    _loaded(source)


def clap_tags(waveform: Tensor, sample_rate: int, source: str) -> str:
    """Comma tags of a clip, empty where nothing is likely.

    Args:
        waveform: (C, T).
        sample_rate: samples per second, in Hz.
        source: a folder with a CLAP, or its name in the local cache.
    """
    clap, texts = _loaded(source)
    embedding = clap.hear(Sound(Path("clip"), waveform, sample_rate))
    said = []
    for kind, words in KINDS.items():
        likeness = SCALE * (texts[kind] @ embedding)
        weights = np.exp(likeness - likeness.max())
        if weights.max() / weights.sum() >= LEAST:
            said.append(words[int(weights.argmax())])
    return ", ".join(said)


# What can be measured of a clip without a trained model: loudness, brightness, attacks, how busy it is.

BANDS = 64  # before those that would hold no bin are left out
LOWEST, HIGHEST = 40.0, 16000.0  # Hz
HARMONIC, PERCUSSIVE = 31, 9  # frames and bands of the medians
FULL_DB = 40.0  # below the loudest cell, down to which a cell counts as filled
# Natural logarithm of the notes per second, from how full the bands are and how much they rise: least squares on 300
# composed clips, whose notes are known.
NOTES = (0.02, 1.58, 10.88)


@dataclasses.dataclass(frozen=True)
class Features:
    """Measurements of a clip.

    Attributes:
        lufs: integrated loudness, minus infinity for silence.
        centroid: mean frequency in Hz, weighted by amplitude.
        percussive: share of the amplitude that belongs to short broad sounds rather than to steady narrow ones.
        notes: estimated notes per second, of all instruments together.
    """

    lufs: float
    centroid: float
    percussive: float
    notes: float


def measure(waveform: Tensor, sample_rate: int) -> Features | None:
    """Measure a clip.

    Harmonic and percussive parts are separated by medians along time and along frequency (Fitzgerald 2010).

    Args:
        waveform: (C, T), one channel or two.
        sample_rate: samples per second, in Hz.

    Returns:
        The measurements; None for silence and for less than a tenth of a second.
    """
    from scipy.ndimage import median_filter

    from riff.audio.loudness import loudness

    mono = mono_row(waveform)
    if mono.size < sample_rate // 10 or np.abs(mono).max() < 1e-4:
        return None
    bands, centres = band_levels(mono, sample_rate)
    harmonic = median_filter(bands, size=(HARMONIC, 1))
    percussive = median_filter(bands, size=(1, PERCUSSIVE))
    mask = percussive**2 / (harmonic**2 + percussive**2 + 1e-20)
    full, rise = _fullness(bands)
    return Features(
        loudness(waveform, sample_rate),
        float((bands * centres).sum() / bands.sum()),
        float((mask * bands).sum() / bands.sum()),
        math.exp(NOTES[0] + NOTES[1] * full + NOTES[2] * rise),
    )


def band_levels(mono: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes (N, at most 64) in bands of equal ratio, 86 times a second, and the bands' centres in Hz.

    Low bands are one bin of the transform, and there are fewer where half the rate is below 16 kHz.
    """
    window, hop = round(0.0464 * sample_rate), round(0.0116 * sample_rate)
    padded = np.pad(mono, window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop] * np.hanning(window)
    level = np.abs(np.fft.rfft(frames.astype(np.float32), axis=1))
    corners = np.geomspace(LOWEST, HIGHEST, BANDS + 1)
    edges = np.unique(corners[corners <= sample_rate / 2] * window / sample_rate // 1).astype(int)
    bands = np.add.reduceat(level[:, : edges[-1]], edges[:-1], axis=1)
    return bands, np.sqrt(edges[:-1] + 0.5) * np.sqrt(edges[1:] + 0.5) * sample_rate / window


def _fullness(bands: np.ndarray) -> tuple[float, float]:
    """Share of the cells that sound, and by how much, on average, the bands rise from frame to frame."""
    relative = bands / bands.max()
    loud = np.log1p(100.0 * relative)
    rise = np.clip(loud[2:] - loud[:-2], 0.0, None).mean() if len(loud) > 2 else 0.0
    return float((relative > 10.0 ** (-FULL_DB / 20.0)).mean()), float(rise)
