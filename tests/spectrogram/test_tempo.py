"""Tempo maps: closed forms, exact inverses, and pictures whose beats fall where a map says."""

import json
import math

import pytest
import torch

from riff.spectrogram.codec import SpectrogramCodec
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.inversion.waveform import mel_to_waveform
from riff.spectrogram.mel import waveform_to_mel
from riff.spectrogram.tempo import TempoMap
from riff.utils.errors import RiffError
from tests.spectrogram.test_spectrogram import chirps

BEATS = SpectrogramConfig()
DRIFTING = [0.31, 0.86, 1.38, 1.97, 2.49, 3.05, 3.6, 4.2]
MAPS = {
    "constant": TempoMap.constant(97.0),
    "glide": TempoMap.glide([(1, 90), (4, 125), (5, 125), (7, 80)]),
    "tracked": TempoMap.from_beats(DRIFTING),
}


@pytest.mark.parametrize("tempo", MAPS.values(), ids=MAPS)
def test_seconds_and_beats_are_each_others_inverse(tempo):
    beats = torch.linspace(-5, 20, 1001, dtype=torch.float64)
    seconds = tempo.seconds_at(beats)
    assert seconds.dtype == torch.float64
    assert bool((seconds.diff() > 0).all())
    torch.testing.assert_close(tempo.beats_at(seconds), beats, atol=1e-12, rtol=1e-12)
    assert float(tempo.seconds_at(0.0)) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("tempo", MAPS.values(), ids=MAPS)
def test_the_tempo_is_the_slope_of_the_beats(tempo):
    beats = torch.tensor([-2.0, 0.5, 2.5, 4.25, 5.5, 6.5, 9.0], dtype=torch.float64)
    slope = 60e-4 / (tempo.seconds_at(beats + 5e-5) - tempo.seconds_at(beats - 5e-5))
    torch.testing.assert_close(tempo.bpm_at(beats), slope, atol=1e-4, rtol=0)


def test_a_glide_is_the_closed_form():
    tempo = TempoMap.glide([(0, 60), (8, 120)])
    slope = (120 - 60) / 8
    for beat in (0.0, 0.5, 4.0, 8.0):
        assert float(tempo.seconds_at(beat)) == pytest.approx(60 / slope * math.log((60 + slope * beat) / 60))
    assert float(tempo.seconds_at(10.0)) == pytest.approx(8 * math.log(2) + 2 * 60 / 120)
    assert float(tempo.seconds_at(-3.0)) == pytest.approx(-3.0)
    assert float(tempo.bpm_at(4.0)) == pytest.approx(90.0)


def test_a_glide_that_hardly_moves_is_the_constant_it_nearly_is():
    nearly = TempoMap.glide([(0, 90), (1000, 90 + 1e-9)])
    assert float(nearly.seconds_at(1000.0)) == pytest.approx(1000 * 60 / 90, rel=1e-11)
    assert TempoMap.glide([(2, 90), (6, 90)]) == TempoMap.constant(90)


def test_tracked_beats_are_kept_and_go_on_as_the_outer_intervals_do():
    tempo = TempoMap.from_beats(DRIFTING)
    expected = torch.tensor(DRIFTING, dtype=torch.float64) - DRIFTING[0]
    torch.testing.assert_close(tempo.seconds_at(torch.arange(8.0)), expected)
    assert float(tempo.seconds_at(9.0)) == pytest.approx(4.2 - 0.31 + 2 * 0.6)
    assert float(tempo.seconds_at(-1.0)) == pytest.approx(-0.55)


def test_a_constant_map_is_bit_for_bit_the_number():
    sound, tempo = chirps(1.0, 44100), TempoMap.constant(112.0)
    mel = waveform_to_mel(sound, BEATS, bpm=112.0)
    assert torch.equal(waveform_to_mel(sound, BEATS, bpm=tempo), mel)
    for loop in (False, True):
        by_map, by_number = (mel_to_waveform(mel, BEATS, bpm=bpm, quality="fast", loop=loop) for bpm in (tempo, 112.0))
        assert torch.equal(by_map, by_number)
    assert all(BEATS.frames_to_samples(n, bpm=tempo) == BEATS.frames_to_samples(n, bpm=112.0) for n in range(999))


@pytest.mark.parametrize("tempo", [*MAPS.values(), TempoMap.glide([(0, 95), (6, 125)])], ids=[*MAPS, "even glide"])
def test_a_click_on_every_beat_lands_at_the_maps_times(tempo):
    clicks = torch.zeros(1, BEATS.frames_to_samples(6 * BEATS.frames_per_beat, bpm=110.0))
    for beat in range(1, 6):
        clicks[0, round(beat * 60 / 110 * 44100)] = 1.0
    sound = mel_to_waveform(waveform_to_mel(clicks, BEATS, bpm=110.0), BEATS, bpm=tempo)[0]
    for beat in range(1, 6):
        centre, column = (float(tempo.seconds_at(b)) for b in (beat, beat + 1 / BEATS.frames_per_beat))
        around = slice(round((centre - 0.05) * 44100), round((centre + 0.05) * 44100))
        energy = sound[around].square()
        found = float((energy * torch.arange(around.start, around.stop)).sum() / energy.sum()) / 44100
        assert abs(found - centre) < 0.25 * (column - centre)


@pytest.mark.parametrize("name", ["glide", "tracked"])
def test_a_sound_on_drifting_beats_lies_on_straight_columns(name):
    sound = torch.zeros(1, round(float(MAPS[name].seconds_at(7.0)) * 44100))
    for beat in range(7):
        sound[0, round(float(MAPS[name].seconds_at(beat)) * 44100)] = 1.0
    mel = waveform_to_mel(sound, BEATS, bpm=MAPS[name])
    assert mel.shape[-1] == 7 * BEATS.frames_per_beat
    for beat in range(1, 7):
        here = mel[0, :, beat * 32 - 8 : beat * 32 + 8].sum(0)
        assert int(here.argmax()) == 8


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("name", ["glide", "tracked"])
def test_the_round_trip_keeps_the_length_to_the_sample_and_the_sound(name, loop):
    samples = BEATS.frames_to_samples(4 * 32, bpm=MAPS[name])
    assert samples == round(float(MAPS[name].seconds_at(4.0)) * 44100)
    sound = chirps(samples / 44100 + 0.01, 44100)[:, :samples]
    mel = waveform_to_mel(sound, BEATS, bpm=MAPS[name])
    assert mel.shape[-1] == 128
    again = mel_to_waveform(mel, BEATS, bpm=MAPS[name], loop=loop)
    assert again.shape == sound.shape
    rebuilt = waveform_to_mel(again, BEATS, bpm=MAPS[name])
    assert float((rebuilt - mel).norm() / mel.norm()) < (0.4 if loop else 0.2)


def test_the_codec_takes_a_map_and_the_seconds_grid_ignores_it():
    sound = chirps(1.0, 44100)
    encoded = SpectrogramCodec().encode(sound, bpm=MAPS["tracked"])
    assert SpectrogramCodec().encode(sound, bpm=MAPS["constant"]).metadata == {"bpm": 97.0, "samples": 44100}
    kept = TempoMap.from_dict(json.loads(json.dumps(encoded.metadata))["tempo"])
    assert kept == MAPS["tracked"]
    again = SpectrogramCodec().decode(encoded.image, bpm=kept, quality="fast")
    assert abs(again.shape[-1] - sound.shape[-1]) < 0.03 * 44100
    seconds = SpectrogramConfig(grid="seconds")
    mel = waveform_to_mel(sound, seconds)
    assert torch.equal(waveform_to_mel(sound, seconds, bpm=MAPS["glide"]), mel)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TempoMap.constant(19.0), "a tempo is 19.0; use 20 to 400"),
        (lambda: TempoMap.constant(math.nan), "a tempo is nan"),
        (lambda: TempoMap.constant("90"), "a tempo is '90'"),
        (lambda: TempoMap.constant(True), "a tempo is True"),
        (lambda: TempoMap.glide([]), "no knot"),
        (lambda: TempoMap.glide([(0, 90), (0, 100)]), "must increase, but 0 follows 0"),
        (lambda: TempoMap.glide([(0, 90), (4, 1000)]), "a tempo is 1000"),
        (lambda: TempoMap.glide([(0, 90), (math.inf, 100)]), "hold inf"),
        (lambda: TempoMap.glide([90, 100]), "use pairs"),
        (lambda: TempoMap.glide(90), "use pairs"),
        (lambda: TempoMap.from_beats([1.0]), "give at least 2"),
        (lambda: TempoMap.from_beats([0.0, 0.5, 0.5]), "must increase, but 0.5 follows 0.5"),
        (lambda: TempoMap.from_beats([0.0, math.nan]), "hold nan"),
        (lambda: TempoMap.from_beats(3.0), "use increasing numbers"),
        (lambda: TempoMap.from_dict([1.0]), "object with the lists of numbers beats, seconds"),
        (lambda: TempoMap.from_dict(MAPS["glide"].to_dict() | {"tempi": [90.0]}), "equally long"),
        (lambda: TempoMap.from_dict(MAPS["constant"].to_dict() | {"tempi": [0.0]}), "tempi above 0"),
        (lambda: BEATS.column_samples(bpm=MAPS["glide"]), "no one length"),
    ],
)
def test_bad_input_gets_one_clear_line(make, message):
    with pytest.raises(RiffError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_map_counted_from_a_later_beat_tells_the_same_times():
    whole = TempoMap.glide([(0, 100), (8, 150)])
    later = whole.starting_at(5.0)
    beats = torch.linspace(-3, 12, 31, dtype=torch.float64)
    torch.testing.assert_close(later.seconds_at(beats), whole.seconds_at(beats + 5.0) - whole.seconds_at(5.0))
    assert float(later.seconds_at(0.0)) == pytest.approx(0.0, abs=1e-12)
