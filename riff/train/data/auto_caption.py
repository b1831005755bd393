"""``--caption auto``: words for a clip from what can be measured and what riff's tagger finds in it.

The tagger has learned from General MIDI music only, so instruments and genre are stated where it is sure, and even
then mean
"most like, among what it knows". Thresholds were chosen on 300 composed clips whose truth is known, and are measured on
others by ``python -m training.measure.captions``.
"""

import functools
import random
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from riff.music.beats import Beats
from riff.music.tagger import Tagger, Tags
from riff.spectrogram.config import SpectrogramConfig
from riff.train.data import wording
from riff.train.data import wording as features
from riff.utils.errors import RiffError

STEADY = 0.8  # steadiness of beats from which a tempo is said
# Beats per minute up to which music is slow, from which it is fast, and which are neither, as riff-mini has it.
SLOW, FAST = 90.0, 126.0
MODERATE = (84.0, 122.0)
# Notes per beat above which a slow tempo may be half the true one, and below which a fast one may be twice it.
MOST_IN_SLOW, LEAST_IN_FAST = 10.0, 8.0
# LUFS: EBU R 128 asks for -23 and streaming services for -14, so that -9 is a loud master. Composed clips, at the level
# of riff.music.alignment, lie between -25.8 and -17.4.
QUIET, LOUD = -26.0, -9.0
WARM, BRIGHT = 1700.0, 4000.0  # Hz of the centroid: the lowest and the highest 15 % of composed clips
SPARSE, BUSY = 9.0, 28.0  # estimated notes per second
PERCUSSIVE, TONAL = 0.53, 0.30  # percussive shares above which 98 % have drums, and below which 92 % have none
SURE_OF_DRUMS = 0.9
SURE_OF_KEY, SURE_OF_KEY_UNTRACKED = 0.7, 0.8
SURE_OF_INSTRUMENT, SURE_OF_INSTRUMENT_TRACKED = 0.8, 0.9
SURE_OF_GENRE = 0.9
MOST_FAMILIES = 4
EVEN_BPM = 120.0
# Family to the tagger's instruments in it; one that is in none stands for itself.
FAMILIES = {
    "guitar": (
        "nylon guitar",
        "acoustic guitar",
        "jazz guitar",
        "electric guitar",
        "muted guitar",
        "overdriven guitar",
        "distorted guitar",
    ),
    "bass": ("upright bass", "electric bass", "slap bass", "synth bass"),
    "strings": ("violin", "viola", "cello", "strings", "pizzicato strings", "fiddle"),
    "brass": ("trumpet", "muted trumpet", "trombone", "french horn", "brass section"),
    "saxophone": ("soprano saxophone", "alto saxophone", "tenor saxophone"),
    "woodwind": ("oboe", "clarinet", "bassoon"),
    "flute": ("flute", "piccolo", "recorder", "pan flute", "shakuhachi", "whistle", "ocarina"),
    "organ": ("hammond organ", "church organ"),
    "synth": ("square lead", "saw lead", "synth pad", "warm pad", "synth strings", "synth brass"),
    "mallets": ("vibraphone", "marimba", "xylophone"),
    "bells": ("tubular bells", "glockenspiel", "celesta", "music box"),
}
_FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names}


@dataclass(frozen=True)
class Description:
    """What is said of a clip; None and nothing where it is not clear.

    Attributes:
        bpm: tempo in beats per minute.
        pace: "slow", "mid-tempo" or "fast", where the tempo is not half or twice what one would count.
        keyscale: such as "F# minor".
        loudness: "quiet" or "loud".
        brightness: "bright", "warm", or "dark" for what is warm and in minor.
        density: "sparse" or "busy".
        drums: whether there are drums.
        percussive: whether short broad sounds prevail (True) or steady tones (False).
        instruments: families such as "guitar", the surest first, without drums.
        genre: one of riff-mini's, in words.
    """

    bpm: float | None = None
    pace: str | None = None
    keyscale: str | None = None
    loudness: str | None = None
    brightness: str | None = None
    density: str | None = None
    drums: bool | None = None
    percussive: bool | None = None
    instruments: tuple[str, ...] = ()
    genre: str | None = None

    def captions(self, words: str, rng: random.Random, count: int) -> list[str]:
        """Captions in riff-mini's vocabulary and manner.

        Args:
            words: the user's, which come first in each, as they are; what they speak of is not said again, and no
                genre is put beside them. May be empty.
            rng: source of every choice; the same state gives the same captions.
            count: how many.

        Returns:
            At most ``count`` different captions, at least one; the first says everything, the others leave out
            attributes at random. Where nothing is known it is ``words``.

        Raises:
            RiffError: ``count`` is less than 1.
        """
        if count < 1:
            raise RiffError(f"count of captions is {count!r}; use 1 or more")
        said = wording.without_what_is_said(self.attributes(), words)
        found = [wording.tags(words, said)]
        for _ in range(8 * count):
            if len(found) == count:
                break
            caption = wording.compose(words, wording.drop(said, rng), rng)
            if caption and caption not in found:
                found.append(caption)
        return found

    def attributes(self) -> wording.Attributes:
        """The description as words to choose from."""
        return wording.Attributes(
            genre=self.genre or "",
            adjectives=tuple(word for word in (self.loudness, self.brightness, self.density) if word),
            instruments=self.instruments,
            drums=self._drums(),
            key=self.keyscale or "",
            bpm=self.bpm,
            pace=self.pace or "",
        )

    def _drums(self) -> bool | None:
        """What to say of drums: what the tagger finds, or else the measured share; nothing where these disagree."""
        if self.drums is None or self.percussive is None:
            return self.percussive if self.drums is None else self.drums
        return self.drums if self.drums == self.percussive else None


def describe(
    waveform: Tensor, sample_rate: int, *, beats: Beats | None, image: Tensor | None, config: SpectrogramConfig
) -> Description:
    """Describe a clip.

    Args:
        waveform: (C, T), one channel or two, as loud as its image, so that "quiet" and "loud" are true of that; one
            that was brought to the model's level (:data:`riff.music.alignment.LEVEL`) is neither.
        sample_rate: samples per second, in Hz.
        beats: of the clip; None says no tempo.
        image: the clip's image (1, M, N), beginning with a bar; None, or one of a config that the tagger does not
            read, is replaced by another.
        config: of ``image``.

    Returns:
        What is clear; nothing for silence.

    Raises:
        RiffError: the sound is empty or holds NaN or infinite samples.
    """
    waveform = torch.atleast_2d(waveform.detach())
    if waveform.numel() == 0 or not bool(torch.isfinite(waveform).all()):
        raise RiffError("a clip to be described is empty or holds NaN or infinite samples; leave it out")
    measured = features.measure(waveform, sample_rate)
    if measured is None:
        return Description()
    bpm = beats.bpm if beats is not None and beats.steadiness >= STEADY else None
    tags, keyscale, instruments = _listen(waveform, sample_rate, bpm, image if _tagger().reads(config) else None)
    genre = _sure(tags.genres, SURE_OF_GENRE)
    attack = _beyond(measured.percussive, TONAL, PERCUSSIVE, "tonal", "percussive")
    return Description(
        bpm=bpm,
        pace=None if bpm is None else _pace(bpm, measured.notes),
        keyscale=keyscale,
        loudness=_beyond(measured.lufs, QUIET, LOUD, "quiet", "loud"),
        brightness=_beyond(measured.centroid, WARM, BRIGHT, _low_word(keyscale), "bright"),
        density=_beyond(measured.notes, SPARSE, BUSY, "sparse", "busy"),
        drums=_drums(tags),
        percussive=None if attack is None else attack == "percussive",
        instruments=instruments,
        genre=None if genre is None else genre.replace("_", " "),
    )


def _listen(
    waveform: Tensor, sample_rate: int, bpm: float | None, image: Tensor | None
) -> tuple[Tags, str | None, tuple[str, ...]]:
    """What the tagger finds, the key and the families it is sure of; by an image of its own where there is none."""
    tagger = _tagger()
    if image is not None:
        tags = tagger.tag_images(image[None])[0]
        return tags, _sure(tags.keys, SURE_OF_KEY), _families(tags, SURE_OF_INSTRUMENT)
    tags = _tracked(tagger, waveform, sample_rate, bpm)
    return tags, _untracked_key(tagger, waveform, sample_rate), _families(tags, SURE_OF_INSTRUMENT_TRACKED)


@functools.cache
def _tagger() -> Tagger:
    return Tagger.load()


def _tracked(tagger: Tagger, waveform: Tensor, sample_rate: int, bpm: float | None) -> Tags:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*an even grid of")
        return tagger.tag(waveform, sample_rate, bpm=bpm)


def _untracked_key(tagger: Tagger, waveform: Tensor, sample_rate: int) -> str | None:
    """The key by an even grid: measured better than by beats tracked in a clip, or by pitch classes alone."""
    own = tagger.image_of(waveform, sample_rate, bpm=EVEN_BPM, downbeat=0.0)
    return _sure(tagger.tag_images(own[None])[0].keys, SURE_OF_KEY_UNTRACKED)


def _sure(ranked: dict[str, float], least: float) -> str | None:
    """The most probable name, if it is probable enough."""
    name, probability = next(iter(ranked.items()))
    return name if probability >= least else None


def _beyond(value: float, low: float, high: float, low_word: str, high_word: str) -> str | None:
    """The word for a value at or below ``low``, or at or above ``high``."""
    return low_word if value <= low else high_word if value >= high else None


def _pace(bpm: float, notes: float) -> str | None:
    """A tempo in a word; trackers take half or twice the tempo, which the notes per beat betray."""
    per_beat = notes * 60.0 / bpm
    if bpm <= SLOW and per_beat <= MOST_IN_SLOW:
        return "slow"
    if bpm >= FAST and per_beat >= LEAST_IN_FAST:
        return "fast"
    return "mid-tempo" if MODERATE[0] <= bpm <= MODERATE[1] else None


def _low_word(keyscale: str | None) -> str:
    return "dark" if keyscale is not None and keyscale.endswith("minor") else "warm"


def _drums(tags: Tags) -> bool | None:
    probability = tags.instruments.get("drums", 0.5)
    return True if probability >= SURE_OF_DRUMS else False if probability <= 1.0 - SURE_OF_DRUMS else None


def _families(tags: Tags, least: float) -> tuple[str, ...]:
    sure = [name for name, probability in tags.instruments.items() if probability >= least and name != "drums"]
    return tuple(dict.fromkeys(_FAMILY_OF.get(name, name) for name in sure))[:MOST_FAMILIES]
