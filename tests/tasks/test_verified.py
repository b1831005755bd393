"""A key that is measured, drawn again and transposed; and the picture that is moved for it."""

import dataclasses

import numpy as np
import pytest
import torch

from riff import SpectrogramConfig
from riff.spectrogram.image import image_to_mel, mel_to_image, transpose_image
from riff.spectrogram.inversion.waveform import mel_to_waveform
from riff.spectrogram.mel import waveform_to_mel
from riff.tasks.candidates import keep_best, retry_until_in_key
from riff.tasks.clip import Clip
from riff.utils.errors import RiffError

CONFIG = SpectrogramConfig()
QUICK = {"num_inference_steps": 2, "quality": "fast"}
TRIADS = {"C major": (261.63, 329.63, 392.0), "A minor": (220.0, 261.63, 329.63), "F# minor": (185.0, 220.0, 277.18)}


def chords(key: str, seconds: float = 3.0) -> torch.Tensor:
    """(1, T): the scale's tonic, subdominant and dominant triads, in turn, ending at home."""
    time = torch.arange(round(seconds * CONFIG.sample_rate)) / CONFIG.sample_rate
    sound = torch.zeros_like(time)
    steps = (0, 5, 7, 0)
    minor = key.endswith("minor")
    for place, step in enumerate(steps):
        third = 3 if minor and step != 7 else 4
        on = (time >= place * seconds / 4) & (time < (place + 1) * seconds / 4)
        for note in (0, third, 7, 12):
            tone = TRIADS[key][0] * 2 ** ((step + note) / 12)
            for partial in (1, 2, 3):
                sound += on * torch.sin(2 * np.pi * tone * partial * time) * 0.3**partial
    return 0.3 * sound[None]


def clip_of(key: str, seed: int = 1) -> Clip:
    image = mel_to_image(waveform_to_mel(chords(key), CONFIG, bpm=120.0), CONFIG)
    return Clip(chords(key), CONFIG.sample_rate, image, CONFIG, "chords", seed, 120.0)


@pytest.mark.parametrize("semitones", [-7, -3, 0, 1, 4, 12])
def test_a_moved_picture_shows_a_tone_where_it_sounds(semitones):
    time = torch.arange(CONFIG.sample_rate) / CONFIG.sample_rate

    def tone(hertz: float) -> torch.Tensor:
        return mel_to_image(waveform_to_mel(0.5 * torch.sin(2 * np.pi * hertz * time)[None], CONFIG, bpm=120.0), CONFIG)

    moved = transpose_image(tone(1000.0), CONFIG, semitones)
    expected = tone(1000.0 * 2 ** (semitones / 12))
    row, wanted = (int(image[0, :, 16:48].mean(1).argmax()) for image in (moved, expected))
    assert abs(row - wanted) <= 1


def test_a_picture_moved_by_nothing_is_the_same_and_time_stays(rng_image):
    torch.testing.assert_close(transpose_image(rng_image, CONFIG, 0), rng_image, rtol=1e-5, atol=1e-5)
    assert transpose_image(rng_image, CONFIG, 5).shape == rng_image.shape


@pytest.fixture
def rng_image() -> torch.Tensor:
    return torch.rand(1, CONFIG.n_mels, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("semitones", [13, -12.5, float("nan")])
def test_more_than_an_octave_is_refused(rng_image, semitones):
    with pytest.raises(RiffError, match="use a number from -12 to 12"):
        transpose_image(rng_image, CONFIG, semitones)


def test_the_first_candidate_in_the_key_is_taken():
    drawn = []

    def draw(number: int) -> Clip:
        drawn.append(number)
        return clip_of(("C major", "F# minor", "A minor")[number])

    clip = retry_until_in_key(draw, "F# minor", tries=3, quality="fast")
    assert drawn == [0, 1]
    assert torch.equal(clip.waveform, chords("F# minor"))
    assert (clip.settings["key_measured"], clip.settings["key_drawn"], clip.settings["key_moved"]) == ("F# minor", 2, 0)


def pulsed(key: str, bpm: float | None, *, asked: float = 120.0) -> Clip:
    """Chords with a click at so many beats per minute, or with no click at all, that were to have 120."""
    clip = clip_of(key)
    sound = clip.waveform.clone()
    if bpm is not None:
        for beat in range(int(3.0 * bpm / 60)):
            start = round(beat * 60 / bpm * clip.sample_rate)
            noise = torch.randn(2000, generator=torch.Generator().manual_seed(beat))
            sound[0, start : start + 2000] += noise * torch.linspace(0.6, 0, 2000)
    return dataclasses.replace(clip, waveform=sound, bpm=asked)


@pytest.mark.parametrize(
    ("pulses", "taken", "drawn"),
    [((90.0, 120.0, 120.0), 1, 2), ((60.0, 120.0, 90.0), 0, 1), ((90.0, 110.0, 97.0), 1, 3)],
    ids=["drawn again", "half the tempo is the tempo", "the nearest at the last"],
)
def test_where_a_tempo_is_asked_for_it_must_be_heard_too(pulses, taken, drawn):
    clips = [pulsed("C major", bpm) for bpm in pulses]
    clip = retry_until_in_key(clips.__getitem__, "C major", tries=3, quality="fast", has_tempo=True)
    assert torch.equal(clip.waveform, clips[taken].waveform)
    assert (clip.settings["key_measured"], clip.settings["key_drawn"], clip.settings["key_moved"]) == (
        "C major",
        drawn,
        0,
    )
    once = retry_until_in_key(clips.__getitem__, "C major", tries=3, quality="fast")
    assert torch.equal(once.waveform, clips[0].waveform)  # where none was asked for, none is looked for


def test_the_key_goes_before_the_tempo():
    clips = [pulsed("A minor", 120.0), pulsed("C major", 90.0)]
    clip = retry_until_in_key(clips.__getitem__, "C major", tries=2, quality="fast", has_tempo=True)
    assert torch.equal(clip.waveform, clips[1].waveform)


def test_where_no_candidate_is_in_the_key_the_nearest_is_moved_there():
    clip = retry_until_in_key(lambda number: clip_of("A minor"), "C minor", tries=2, quality="fast")
    assert clip.settings["key_moved"] == 3
    assert clip.settings["key_measured"] == "C minor"
    assert clip.waveform.shape == chords("A minor").shape


def test_a_silent_candidate_is_no_error():
    silent = dataclasses.replace(clip_of("C major"), waveform=torch.zeros(1, 44100))
    assert retry_until_in_key(lambda number: silent, "C minor", tries=1, quality="fast").settings["key_drawn"] == 1


def test_a_moved_picture_keeps_its_sound_playable():
    moved = transpose_image(clip_of("C major").image, CONFIG, 2)
    sound = mel_to_waveform(image_to_mel(moved, CONFIG), CONFIG, bpm=120.0, quality="fast")
    assert bool(torch.isfinite(sound).all())


# In the pipeline


def test_a_verified_clip_says_what_was_measured_and_is_made_again_from_its_seed(pipe):
    options = {"key": "A minor", "key_tries": 3, "bpm": 120.0, **QUICK}
    first, again = (pipe("techno", seed=5, **options).clips[0] for _ in range(2))
    assert torch.equal(first.waveform, again.waveform)
    assert first.seed == 5
    assert first.settings["key_measured"]
    assert 1 <= first.settings["key_drawn"] <= 3
    assert first.duration == 4.0


def test_without_tries_nothing_is_measured(pipe):
    assert "key_measured" not in pipe("techno", seed=5, key="A minor", bpm=120.0, **QUICK).clips[0].settings


def test_a_time_signature_decides_the_metre_and_is_told_to_the_model(pipe):
    three = pipe("lullaby, 120 bpm", seed=1, timesignature="3/4", **QUICK).clips[0]
    assert three.duration == 3.0
    assert three.prompt == "lullaby, 120 bpm"
    assert torch.equal(three.waveform, pipe("lullaby, 120 bpm, in 3/4", seed=1, **QUICK).clips[0].waveform)
    assert pipe("waltz, 120 bpm", seed=1, timesignature="4/4", **QUICK).clips[0].duration == 4.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_tries": 2}, "key_tries is 2 without a key"),
        ({"key_tries": 17, "key": "C major"}, "key_tries is 17"),
        ({"time_signature": "5/4"}, "time_signature is '5/4'"),
    ],
)
def test_wrong_wishes_are_one_line(pipe, options, message):
    with pytest.raises(RiffError, match=message):
        pipe("techno", seed=1, **QUICK, **options)


# The best of several


def test_the_best_candidate_is_in_the_requested_key() -> None:
    keys = ("C major", "F# minor", "A minor")
    clip = keep_best(lambda number: clip_of(keys[number], seed=9), count=3, prompt="chords", key="F# minor")
    assert torch.equal(clip.waveform, clip_of("F# minor").waveform)
    assert clip.seed == 9 and 1.0 <= clip.settings["best_score"] <= 3.0


def test_a_key_in_the_prompt_counts_as_a_requested_one() -> None:
    keys = ("C major", "F# minor")
    clip = keep_best(lambda number: clip_of(keys[number]), count=2, prompt="chords in F# minor", key=None)
    assert torch.equal(clip.waveform, clip_of("F# minor").waveform)


def test_of_equal_candidates_the_first_is_kept() -> None:
    clip = keep_best(lambda number: clip_of("C major", seed=number), count=3, prompt="chords", key="C major")
    assert clip.seed == 0


def test_best_of_one_is_the_plain_clip(pipe) -> None:
    plain, one = (pipe("techno", seed=5, **options, **QUICK)[0] for options in ({}, {"best_of": 1}))
    assert torch.equal(plain.waveform, one.waveform)


def test_best_of_several_scores_at_least_the_first_and_repeats(pipe) -> None:
    first, again = (pipe("techno, 120 bpm", seed=5, key="A minor", best_of=3, **QUICK)[0] for _ in range(2))
    assert torch.equal(first.waveform, again.waveform)
    assert first.seed == 5 and first.provenance["best_of"] == "3"
    alone = keep_best(lambda _: pipe("techno, 120 bpm", seed=5, key="A minor", **QUICK)[0], count=1,
                      prompt="techno, 120 bpm", key="A minor")  # fmt: skip
    assert first.settings["best_score"] >= alone.settings["best_score"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"best_of": 17}, "best_of is 17; use a whole number from 1 to 16"),
        ({"best_of": 2, "key_tries": 2, "key": "C major"}, "key_tries is 2 and best_of 2; give one of them"),
    ],
)
def test_a_wrong_best_of_is_one_line(pipe, options, message) -> None:
    with pytest.raises(RiffError, match=message):
        pipe("techno", **options, **QUICK)
