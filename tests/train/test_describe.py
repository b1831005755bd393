"""Words for clips: what is measured is so, what is not clear is not said, and the user's words come first and win."""

import math
import random
import re
import warnings

import numpy as np
import pytest
import torch

from riff.music.alignment import LEVEL
from riff.music.beats import Beats
from riff.music.tagger import Tagger
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import mel_to_image
from riff.spectrogram.mel import waveform_to_mel
from riff.train.data import wording
from riff.train.data import wording as features
from riff.train.data.auto_caption import FAMILIES, Description, describe
from riff.utils.errors import RiffError
from training.composer.captions import vocabulary
from training.composer.genres import GENRES

RATE = 44100
CONFIG = SpectrogramConfig()
EVEN = Beats(tuple(0.5 * n for n in range(9)), 0, 120.0, 1.0)
WHOLE = Description(
    bpm=84.2,
    pace="slow",
    keyscale="A minor",
    brightness="dark",
    density="sparse",
    drums=True,
    instruments=("piano", "bass", "saxophone"),
    genre="lofi hip hop",
)


def _tone(hertz: float, seconds: float = 4.0) -> np.ndarray:
    return np.sin(2 * math.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


def _clip(sound: np.ndarray, *, gain: float = 1.0) -> torch.Tensor:
    """(1, T) at the model's level, times a gain."""
    level = 10.0 ** (LEVEL / 20.0) / math.sqrt(float(np.mean(sound**2)))
    return torch.from_numpy(gain * level * sound).float()[None]


def _chord() -> np.ndarray:
    return sum(_tone(hertz) for hertz in (220.0, 261.63, 329.63))


def _noise(every: float, length: float = 0.03) -> np.ndarray:
    """Bursts of noise."""
    sound = np.zeros(4 * RATE)
    burst = np.random.default_rng(0).standard_normal(round(length * RATE)) * np.linspace(1, 0, round(length * RATE))
    for start in range(0, len(sound) - len(burst), round(every * RATE)):
        sound[start : start + len(burst)] += burst
    return sound


def _told(clip: torch.Tensor, beats: Beats | None = EVEN) -> Description:
    image = mel_to_image(waveform_to_mel(clip, CONFIG, bpm=120.0), CONFIG)
    return describe(clip, RATE, beats=beats, image=image, config=CONFIG)


def test_tempo_is_said_only_where_the_beats_are_steady() -> None:
    clip = _clip(_chord())
    assert _told(clip).bpm == 120.0
    assert _told(clip, Beats(EVEN.times, 0, 120.0, 0.3)).bpm is None
    assert _told(clip, None).bpm is None


@pytest.mark.parametrize(("gain", "word"), [(1.0, None), (0.2, "quiet"), (6.0, "loud")])
def test_loudness_words_follow_the_level(gain: float, word: str | None) -> None:
    assert _told(_clip(_chord() + 0.3 * _noise(0.5), gain=gain)).loudness == word


def test_brightness_words_follow_the_spectrum() -> None:
    assert _told(_clip(_tone(6000.0) + 0.1 * _tone(220.0))).brightness == "bright"
    low = _told(_clip(_tone(110.0) + 0.3 * _tone(138.59)))
    assert low.brightness == ("dark" if (low.keyscale or "").endswith("minor") else "warm")


def test_density_words_follow_the_notes() -> None:
    few, many = (features.measure(_clip(_noise(every)), RATE) for every in (1.0, 0.06))
    assert few is not None and many is not None
    assert few.notes < many.notes
    assert _told(_clip(_tone(220.0))).density == "sparse"


def test_bursts_are_percussive_and_steady_tones_are_not() -> None:
    assert _told(_clip(_noise(0.25))).percussive is True
    assert _told(_clip(_chord())).percussive is False


def test_loudness_of_the_features_is_that_of_the_standard() -> None:
    """BS.1770: a full-scale sine of 997 Hz in one channel has -3.01 LUFS."""
    measured = features.measure(torch.from_numpy(_tone(997.0)).float()[None], RATE)
    assert measured is not None
    assert measured.lufs == pytest.approx(-3.01, abs=0.05)
    assert measured.centroid == pytest.approx(997.0, rel=0.15)


@pytest.mark.parametrize("rate", [22050, 48000, 96000])
def test_features_hardly_depend_on_the_sample_rate(rate: int) -> None:
    from riff.audio.io import resample

    clip = _clip(_chord() + 0.5 * _noise(0.25))
    here, there = features.measure(clip, RATE), features.measure(resample(clip, RATE, rate), rate)
    assert here is not None and there is not None
    # Half the rate leaves out what is above 11 kHz.
    assert there.percussive == pytest.approx(here.percussive, abs=0.1)
    assert math.log(there.notes / here.notes) == pytest.approx(0.0, abs=0.4)


@pytest.mark.parametrize("clip", [torch.zeros(1, RATE), torch.full((2, 50), 0.1)], ids=["silence", "a millisecond"])
def test_of_silence_nothing_is_said(clip: torch.Tensor) -> None:
    told = describe(clip, RATE, beats=EVEN, image=None, config=CONFIG)
    assert told == Description()
    assert told.captions("", random.Random(0), 3) == [""]
    assert told.captions("rain", random.Random(0), 3) == ["rain"]


@pytest.mark.parametrize("clip", [torch.zeros(1, 0), torch.full((1, RATE), math.nan)], ids=["empty", "NaN"])
def test_a_clip_that_is_no_sound_is_one_clear_error(clip: torch.Tensor) -> None:
    with pytest.raises(RiffError, match="empty or holds NaN"):
        describe(clip, RATE, beats=None, image=None, config=CONFIG)


def test_an_image_the_tagger_cannot_read_is_replaced_without_a_warning() -> None:
    clip = _clip(_chord()).expand(2, -1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = describe(clip, RATE, beats=None, image=torch.zeros(1, 512, 512), config=SpectrogramConfig.riffusion())
    assert told.bpm is None
    assert told.drums is not True


def test_families_are_made_of_what_the_tagger_knows() -> None:
    known = set(Tagger.load().labels.instruments)
    assert {name for names in FAMILIES.values() for name in names} <= known
    assert sum(len(names) for names in FAMILIES.values()) == len({n for names in FAMILIES.values() for n in names})


def test_every_word_is_in_the_vocabulary_of_riff_mini() -> None:
    known, rng = set(vocabulary()), random.Random(0)
    labels = Tagger.load().labels
    genres = [""] + [genre.replace("_", " ") for genre in labels.genres]
    families = [*FAMILIES, *(set(labels.instruments) - {n for names in FAMILIES.values() for n in names} - {"drums"})]
    said: set[str] = set()
    for number in range(600):
        told = Description(
            bpm=rng.uniform(50.0, 180.0),
            pace=rng.choice(("slow", "mid-tempo", "fast", None)),
            keyscale=rng.choice(("F# minor", "C major")),
            loudness=rng.choice(("quiet", "loud", None)),
            brightness=rng.choice(("bright", "warm", "dark")),
            density=rng.choice(("sparse", "busy")),
            drums=rng.choice((True, False, None)),
            instruments=tuple(rng.sample(families, 3)),
            genre=genres[number % len(genres)],
        )
        for caption in told.captions("", rng, 4):
            said |= set(re.findall(r"[a-z]+", caption.lower()))
    assert said - known == set()
    assert set(labels.genres) <= set(GENRES)


def test_the_first_caption_says_everything_and_the_others_less() -> None:
    captions = WHOLE.captions("", random.Random(1), 8)
    assert captions[0] == "lofi hip hop, dark, sparse, piano, bass, saxophone, with drums, A minor, 84 bpm"
    assert len(captions) == len(set(captions)) == 8
    assert any(" in A minor" in caption or " at 84" in caption for caption in captions[1:])
    assert any("piano" not in caption for caption in captions)
    assert captions == WHOLE.captions("", random.Random(1), 8)
    with pytest.raises(RiffError, match="use 1 or more"):
        WHOLE.captions("", random.Random(0), 0)


def test_the_users_words_come_first_and_no_genre_beside_them() -> None:
    captions = WHOLE.captions("  Rain on\nthe roof.  ", random.Random(0), 12)
    assert all(caption.startswith("Rain on the roof") for caption in captions)
    assert not any("hip hop" in caption for caption in captions)
    assert captions[0] == "Rain on the roof, dark, sparse, piano, bass, saxophone, with drums, A minor, 84 bpm"
    assert len(captions) == 12


@pytest.mark.parametrize(
    ("words", "kept_out"),
    [
        ("70 bpm tape loop", ("84 bpm", "slow")),
        ("a slow one", ("84 bpm", "84 BPM")),
        ("Sketch in D major", ("A minor",)),
        ("ukulele tune", ("piano", "saxophone", "bass")),
        ("no drums here", ("with drums", "with a beat", "with percussion")),
        ("bright morning", ("dark", "moody")),
    ],
)
def test_the_users_words_win_over_what_is_measured(words: str, kept_out: tuple[str, ...]) -> None:
    rest = [caption.removeprefix(words) for caption in WHOLE.captions(words, random.Random(0), 20)]
    assert not [caption for caption in rest if any(word in caption for word in kept_out)]
    assert any(caption for caption in rest)


def test_tagger_and_measure_that_disagree_about_drums_say_nothing() -> None:
    assert Description(drums=True, percussive=False).attributes().drums is None
    assert Description(drums=None, percussive=True).attributes().drums is True
    assert Description(drums=False, percussive=None).attributes().drums is False


def test_an_ambiguous_tempo_is_not_put_in_words() -> None:
    bursts = _clip(_noise(0.06) + _noise(0.0625) + 0.2 * _chord())
    slow, fast = (Beats(EVEN.times, 0, bpm, 1.0) for bpm in (60.0, 160.0))
    few, many = _clip(_tone(220.0)), bursts
    assert _told(few, slow).pace == "slow"
    assert _told(few, fast).pace is None
    assert _told(many, slow).pace is None
    assert _told(few, Beats(EVEN.times, 0, 100.0, 1.0)).pace == "mid-tempo"


def test_an_instrument_that_the_genre_names_is_not_said_twice() -> None:
    told = Description(genre="drum and bass", instruments=("bass", "piano"))
    assert told.captions("", random.Random(0), 1) == ["drum and bass, piano"]


def test_attributes_are_dropped_about_as_often_as_the_rates_say() -> None:
    rng = random.Random(0)
    kept = [wording.drop(WHOLE.attributes(), rng) for _ in range(2000)]
    assert np.mean([bool(part.key) for part in kept]) == pytest.approx(wording.RATES["key"], abs=0.04)
    assert np.mean([part.bpm is not None for part in kept]) == pytest.approx(wording.RATES["tempo"], abs=0.04)
