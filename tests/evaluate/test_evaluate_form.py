"""Form and obedience: loops with and without a planted seam, sounds that jump, prompts whose meaning is known."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from riff.evaluate.form import evenness, form, measure_form, onset_sharpness, seam
from riff.evaluate.obedience import (
    GENRE_WORDS,
    INSTRUMENT_WORDS,
    Detected,
    Requested,
    detect,
    genres_in,
    instruments_in,
    obedience,
    requested_of,
)
from riff.evaluate.sounds import Sound
from riff.music.key import detect_key
from riff.music.tempo_estimation import measure_tempo

RATE = 22050


def _beat(bpm: float, *, beats: int = 16, attack: float = 0.001) -> np.ndarray:
    """A tone of whole turns with a drum on every beat, so that the end leads into the start; noise seeded by beat."""
    length = round(beats * 60 * RATE / bpm)
    time = np.arange(length) / RATE
    sound = 0.1 * np.sin(2 * math.pi * round(220 * length / RATE) * np.arange(length) / length)
    for beat in range(beats):
        since = (time - beat * 60 / bpm) % (length / RATE)
        hit = np.random.default_rng(5).standard_normal(length)
        envelope = np.minimum(since / attack, 1.0) * np.exp(-since * 30) * (since < 0.3)
        sound += 0.3 * np.roll(hit, round(beat * 60 * RATE / bpm)) * envelope
    return 0.5 * sound


def _sound(mono: np.ndarray, **metadata: str) -> Sound:
    return Sound(Path("a.wav"), torch.from_numpy(np.atleast_2d(mono)).float(), RATE, metadata)


def test_a_loop_that_closes_has_a_seam_like_any_downbeat() -> None:
    found = measure_form(_sound(_beat(120.0), bpm="120", loop="True"))
    assert found.seam_flux == pytest.approx(1.0, abs=0.25)
    assert found.seam_step == pytest.approx(1.0, abs=0.25)


def test_a_planted_step_and_a_cut_show_at_the_seam_alone() -> None:
    closed = _beat(120.0)
    jump = closed + np.linspace(0.0, 0.9, len(closed))  # the end is 0.9 above the start
    assert seam(_sound(jump), 4)[1][0] > 3.0 * max(seam(_sound(jump), 4)[1][1:])
    tone = np.sin(2 * math.pi * 220.5 * np.arange(8 * RATE) / RATE + 1.0)
    flux, _ = seam(_sound(tone * np.linspace(1, 0.5, 8 * RATE)), 4)
    assert flux[0] > 5.0 * max(flux[1:])
    found = measure_form(_sound(jump, bpm="120", loop="True"))
    assert found.seam_usual is False
    assert found.seam_step > 3.0


def test_only_a_loop_has_a_seam() -> None:
    found = measure_form(_sound(_beat(120.0), bpm="120"))
    assert math.isnan(found.seam_flux)
    assert found.seam_usual is None


def test_a_steady_sound_is_even_and_a_change_at_once_is_not() -> None:
    rng = np.random.default_rng(0)
    steady = 0.1 * rng.standard_normal(16 * RATE)
    tone = 0.14 * np.sin(2 * math.pi * 440 * np.arange(16 * RATE) / RATE) + 0.001 * steady
    cut = np.where(np.arange(16 * RATE) < 8 * RATE, steady, tone)
    fade = np.linspace(0, 1, 16 * RATE)
    slow = np.sqrt(1 - fade) * steady + np.sqrt(fade) * tone
    roughness = [evenness(_sound(wave), 2.0)[0] for wave in (steady, slow, cut)]
    assert roughness[0] < 2.0
    assert roughness == sorted(roughness)
    assert roughness[2] > 4.0  # of 7 steps all the change is in one


@pytest.mark.parametrize("decibels", [3.0, 12.0])
def test_the_largest_level_step_is_the_planted_one(decibels: float) -> None:
    wave = 0.05 * np.random.default_rng(1).standard_normal(12 * RATE)
    wave[6 * RATE :] *= 10 ** (decibels / 20)
    assert evenness(_sound(wave), 2.0)[1] == pytest.approx(decibels, abs=0.3)


def test_soft_attacks_are_less_sharp_and_the_reference_is_nought() -> None:
    attacks = [onset_sharpness(_sound(_beat(100.0, attack=attack))) for attack in (0.001, 0.03, 0.1)]
    assert attacks == sorted(attacks, reverse=True)
    assert attacks[0] > attacks[2] + 3.0
    forms = [measure_form(_sound(_beat(100.0))) for _ in range(2)]
    figures = {figure.name: figure for figure in form(forms, forms)}
    assert figures["Onset sharpness against the reference"].value == pytest.approx(0.0)
    assert math.isnan(figures["Loop seam, flux"].value)
    assert figures["Loop seams like a downbeat"].n == 0
    assert math.isnan(onset_sharpness(_sound(np.zeros(3 * RATE))))


def test_a_short_or_silent_sound_has_no_form_and_no_error() -> None:
    for wave in (np.zeros(RATE), np.zeros(12 * RATE), np.ones(100)):
        found = measure_form(_sound(wave, bpm="nonsense", loop="True"))
        assert math.isnan(found.seam_flux)
        assert math.isnan(found.sharpness)


def test_the_words_name_what_the_tagger_knows() -> None:
    from riff.music.tagger import Tagger

    labels = Tagger.load().labels
    assert tuple(GENRE_WORDS) == labels.genres
    assert set(INSTRUMENT_WORDS) == set(labels.instruments)


@pytest.mark.parametrize(
    ("prompt", "genres", "instruments"),
    [
        ("lo-fi hip hop, mellow electric piano", ("lofi_hip_hop",), (("electric piano",),)),
        ("drum and bass at 174 bpm", ("drum_and_bass",), ()),
        ("classical piano", ("classical_piano",), (("piano",),)),
        ("House music with no drums, violins", ("house",), (("fiddle", "violin"),)),
        ("jazz guitar without drums", ("swing_jazz",), (("jazz guitar",),)),
        ("a rocket, metallic trapdoor", (), ()),
        ("techno without any piano", ("techno",), ()),
        ("", (), ()),
    ],
)
def test_a_prompts_genres_and_instruments(prompt: str, genres: tuple, instruments: tuple) -> None:
    assert genres_in(prompt) == genres
    assert tuple(tuple(sorted(names)) for names in instruments_in(prompt)) == instruments


def test_what_is_asked_comes_from_the_fields_before_the_prompt() -> None:
    requested = requested_of({"prompt": "techno at 128 bpm in A minor", "bpm": "130", "keyscale": "Bb minor"})
    assert (requested.bpm, requested.keyscale, requested.genres) == (130.0, "A# minor", ("techno",))
    requested = requested_of({"prompt": "techno at 128 bpm in A minor", "bpm": "fast", "keyscale": "H"})
    assert (requested.bpm, requested.keyscale) == (128.0, "A minor")
    assert requested_of({}) == Requested()


def test_shares_count_what_was_asked_only() -> None:
    requested = [
        Requested(bpm=100.0, keyscale="C major", genres=("techno",), instruments=(("piano",), ("violin", "fiddle"))),
        Requested(bpm=100.0, keyscale="C major"),
        Requested(bpm=100.0),
        Requested(),
    ]
    detected = [
        Detected(100.5, "C major", "techno", frozenset({"piano"})),
        Detected(203.0, "G major", "rock"),
        Detected(),
        Detected(90.0, "C major", "rock"),
    ]
    figures = {figure.name: figure for figure in obedience(requested, detected)}
    assert (figures["Tempo within 1 %"].value, figures["Tempo within 1 %"].n) == (pytest.approx(1 / 3), 3)
    assert figures["Tempo within 4 %, any octave"].value == pytest.approx(2 / 3)
    assert figures["Tempo within 1 %, any octave"].value == pytest.approx(1 / 3)
    assert (figures["Key exact"].value, figures["Key exact"].n) == (0.5, 2)
    assert figures["Key, MIREX score"].value == pytest.approx(0.75)
    assert (figures["Genre (riff's tagger)"].value, figures["Genre (riff's tagger)"].n) == (1.0, 1)
    assert figures["Instruments (riff's tagger)"].value == 0.5
    assert figures["All instruments (riff's tagger)"].value == 0.0
    assert all(math.isnan(figure.value) for figure in obedience([Requested()], [Detected()]))


@pytest.mark.parametrize("bpm", [84.0, 108.0, 140.0])
def test_the_beat_of_a_plain_drum_and_bass_note_is_found_at_its_own_level(bpm: float) -> None:
    assert measure_tempo(_beat(bpm), RATE) == pytest.approx(bpm, rel=0.005)


def test_key_by_the_tagger_is_that_of_a_cadence_in_any_transposition() -> None:
    from riff.music.tagger import Tagger

    tagger, names = Tagger.load(), ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
    right = 0
    for tonic in range(0, 12, 3):
        for mode, third in (("major", 4), ("minor", 3)):
            chords = [(0, third, 7), (5, 5 + third, 12), (7, 11, 14), (0, third, 7)] * 2
            time = np.arange(RATE // 2) / RATE
            notes = [
                sum(
                    np.sin(2 * math.pi * 261.6 * 2 ** ((tonic + pitch - 12 * (voice == 0)) / 12) * k * time) * 0.5**k
                    for voice, pitch in enumerate((chord[0], *chord))
                    for k in range(1, 5)
                )
                * np.exp(-2 * time)
                for chord in chords
            ]
            wave = torch.from_numpy(np.concatenate(notes)).float()[None] * 0.1
            right += detect_key(wave, RATE, tagger=tagger, bpm=120.0) == f"{names[tonic]} {mode}"
    assert right == 8


def test_silence_is_heard_as_nothing() -> None:
    from riff.music.tagger import Tagger

    assert detect(_sound(np.zeros(4 * RATE)), Tagger.load()) == Detected()


def test_of_a_long_sound_the_middle_is_heard() -> None:
    tones = [0.2 * np.sin(2 * math.pi * pitch * np.arange(RATE) / RATE) for pitch in (200, 300, 400)]
    sound = _sound(np.concatenate(tones))
    assert torch.equal(sound.middle(1.0).waveform, sound.waveform[:, RATE : 2 * RATE])
    assert sound.middle(3.0) is sound


def test_a_clip_of_riffs_is_tagged_on_its_own_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    from riff.music.tagger import Tagger

    tagger, requested = Tagger.load(), []
    real = tagger.image_of

    def picture(waveform, sample_rate, *, bpm=None, downbeat=None):
        requested.append((bpm, downbeat))
        return real(waveform, sample_rate, bpm=bpm, downbeat=downbeat)

    monkeypatch.setattr(tagger, "image_of", picture)
    wave = _beat(120.0, beats=8)
    detect(_sound(wave, bpm="121", model="riff-mini"), tagger)
    assert requested[-1] == (121.0, 0.0)
    detect(_sound(wave), tagger)
    assert requested[-2][1] == 0.0  # the start at the measured tempo, and the tracked downbeat
    assert requested[-2][0] == pytest.approx(120.0, rel=0.01)
    assert requested[-1] == (None, None)
