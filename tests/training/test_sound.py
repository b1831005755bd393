"""Voices, drum machines, effects and the mix do to sound what their numbers say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from riff.audio.loudness import loudness
from training.composer import effects
from training.composer.effects import SAMPLE_RATE
from training.composer.excerpt import excerpts
from training.composer.genres import GENRES
from training.composer.machines import KITS, SOUNDS, available, one_shot, play_machine
from training.composer.mix import STYLES
from training.composer.theory import INSTRUMENTS
from training.composer.voices import VOICES, play_voice

SECOND = SAMPLE_RATE
NOISE = np.random.default_rng(0).normal(0, 0.2, (2, 2 * SECOND)).astype(np.float32)


def held(voice: str, pitch: int = 69, bpm: float = 120.0) -> np.ndarray:
    return play_voice(voice, [(0, SECOND, pitch, 100)], length=2 * SECOND, bpm=bpm, rng=np.random.default_rng(1))


def spectrum(sound: np.ndarray) -> np.ndarray:
    return np.abs(np.fft.rfft(sound[..., :SECOND].mean(0)))


@pytest.mark.parametrize("voice", VOICES)
def test_a_voice_sounds_its_note_and_ends(voice: str) -> None:
    sound = play_voice(voice, [(0, SECOND, 57, 100)], length=8 * SECOND, bpm=120, rng=np.random.default_rng(1))
    assert np.isfinite(sound).all() and 0.02 < np.abs(sound).max() < 3
    assert np.abs(sound[:, -2000:]).max() < 0.03 * np.abs(sound).max()


@pytest.mark.parametrize("voice", ["supersaw", "saw lead", "square lead", "sub bass", "sine lead", "chip triangle"])
def test_the_strongest_partial_is_the_notes_own(voice: str) -> None:
    assert abs(int(spectrum(held(voice)).argmax()) - 440) <= 8  # a supersaw is a cluster around its note


def test_a_high_saw_has_no_aliases() -> None:
    power = spectrum(held("thin pulse", 93)) ** 2  # 1760 Hz
    own = sum(power[k * 1760 - 30 : k * 1760 + 31].sum() for k in range(1, 12))
    assert own / power.sum() > 0.98


@pytest.mark.parametrize("bpm", [120.0, 140.0])
def test_a_wobble_keeps_to_the_beat(bpm: float) -> None:
    rng = np.random.default_rng(1)
    sound = play_voice("wobble bass", [(0, 4 * SECOND, 36, 100)], length=4 * SECOND, bpm=bpm, rng=rng)
    loud = np.abs(effects.highpass(sound, 600).mean(0)).reshape(-1, 441).mean(1)
    rates = np.abs(np.fft.rfft(loud - loud.mean(), 40000))  # bins of 1/400 Hz
    beat = bpm / 60  # below, the detuned oscillators beat with one another
    low, high = round(320 * beat), round(1000 * beat)
    found = (rates[low:high].argmax() + low) / 400 / beat
    assert min(abs(found - allowed) for allowed in (1.0, 1.5, 2.0)) < 0.06


def test_touching_notes_slide_and_separate_ones_do_not() -> None:
    notes = [(0, SECOND, 45, 100), (SECOND, SECOND, 57, 100)]
    apart = [(0, SECOND // 2, 45, 100), (SECOND, SECOND, 57, 100)]
    sounds = [
        play_voice("808 bass", each, length=2 * SECOND, bpm=120, rng=np.random.default_rng(1))
        for each in (notes, apart)
    ]
    starts = [np.abs(np.fft.rfft(sound[0, SECOND + 400 : SECOND + 3000], SECOND)).argmax() for sound in sounds]
    assert starts[0] < starts[1]


def test_voices_are_the_same_for_a_seed() -> None:
    np.testing.assert_array_equal(held("hoover synth"), held("hoover synth"))


@pytest.mark.parametrize("name", SOUNDS)
def test_a_stroke_is_loud_at_once_and_dies_away(name: str) -> None:
    wave = one_shot(name)
    assert np.abs(wave).max() == pytest.approx(1.0)
    assert np.abs(wave[:2205]).max() > 0.3 and np.abs(wave[-100:]).max() < 0.05


def test_the_next_closed_hat_stops_an_open_one() -> None:
    alone = play_machine("909", [(0, 99, 46, 100)], length=SECOND)[1]
    stopped = play_machine("909", [(0, 99, 46, 100), (4410, 99, 42, 1)], length=SECOND)[1]
    assert np.abs(stopped[:, 9000:]).max() < 0.05 * np.abs(alone[:, 9000:]).max() + 1e-4


def test_kicks_come_apart_from_the_rest() -> None:
    kick, rest = play_machine("808", [(0, 99, 36, 100), (SECOND // 2, 99, 38, 100)], length=SECOND)
    assert np.abs(kick[:, : SECOND // 2]).max() > 0.2 and not rest[:, : SECOND // 2].any()
    assert np.abs(rest[:, SECOND // 2 :]).max() > 0.1


def test_every_genre_names_styles_kits_and_instruments_that_exist() -> None:
    for genre in GENRES.values():
        assert genre.mix in STYLES and set(genre.kits) <= {"", *KITS}
        assert {name for layer in genre.layers for name in layer.instruments} <= set(INSTRUMENTS)
    assert set(VOICES) <= set(INSTRUMENTS) | {"supersaw pad", "square pluck"}
    assert available("808")


def test_a_delay_of_whole_samples_is_a_shift() -> None:
    delay = np.full(NOISE.shape[1], 100, np.float32)
    np.testing.assert_allclose(effects.delayed(NOISE, delay)[:, 200:], effects.shifted(NOISE, 100)[:, 200:], atol=0.05)


def test_a_room_has_unit_energy_and_falls_by_60_db_in_its_time() -> None:
    echo = effects.room(1.0, 0.5, 0.0, 0)
    np.testing.assert_allclose((echo**2).sum(1), 1.0, rtol=1e-4)
    level = 10 * np.log10((effects.peak(echo, 700, 20.0) ** 2).sum(0).reshape(-1, 2205)[:20].mean(1))
    slope = np.polyfit(np.arange(2, 16) * 0.05, level[2:16], 1)[0]
    assert -80 < slope < -45


def test_a_limiter_holds_its_ceiling_and_leaves_the_quiet_alone() -> None:
    np.testing.assert_array_equal(effects.limited(0.1 * NOISE), 0.1 * NOISE)
    assert np.abs(effects.limited(8 * NOISE)).max() <= 0.9 + 1e-6


@pytest.mark.parametrize("lufs", [-14.0, -16.0])
def test_a_master_is_as_loud_as_asked(lufs: float) -> None:
    mastered = effects.mastered(0.05 * NOISE, lufs)
    assert loudness(torch.from_numpy(mastered), SAMPLE_RATE) == pytest.approx(lufs, abs=0.3)
    assert np.abs(mastered).max() <= 0.9 + 1e-6


def test_a_compressor_narrows_the_range() -> None:
    steps = NOISE * np.repeat([0.1, 1.0], SECOND).astype(np.float32)
    squeezed = effects.compressed(steps, threshold=-12, ratio=4)
    before, after = (sound[:, SECOND:].std() / sound[:, :SECOND].std() for sound in (steps, squeezed))
    assert after < 0.6 * before


def test_the_pump_ducks_at_kicks_and_comes_back() -> None:
    gain = effects.pumped(SECOND, [1000], depth=0.7, seconds=0.3)
    assert gain[:1000].min() == 1.0 and gain[1300:2000].max() < 0.45 and gain[-1] == 1.0


def test_an_amplifier_adds_overtones_and_gives_each_side_its_own_take() -> None:
    tone = np.tile(np.sin(2 * np.pi * 220 * np.arange(SECOND) / SAMPLE_RATE).astype(np.float32) * 0.3, (2, 1))
    driven = effects.amplified(tone, drive=16, tone=5000, seed=1)
    power = spectrum(driven) ** 2
    assert power[600:].sum() / power[:600].sum() > 50 * (spectrum(tone)[600:] ** 2).sum() / (spectrum(tone) ** 2).sum()
    assert power[600:].sum() > 0.05 * power.sum()
    assert 0.2 < np.corrcoef(driven)[0, 1] < 0.98


def test_pan_turns_the_sound_to_its_side() -> None:
    for pan, louder in ((-0.8, 0), (0.8, 1)):
        power = (effects.panned(NOISE, pan) ** 2).mean(1)
        assert power[louder] > 4 * power[1 - louder]


def test_spread_leaves_the_middle_as_it_was() -> None:
    mono = np.stack([NOISE[0]] * 2)
    wide = effects.spread(mono, 0.5, 3)
    np.testing.assert_allclose(wide.mean(0), mono[0], atol=1e-5)
    assert (wide[0] - wide[1]).std() > 0.1 * mono.std()


def test_old_tape_has_no_highs_left() -> None:
    worn = effects.taped(NOISE, np.random.default_rng(0), wear=1.0)
    share = [(spectrum(sound)[9000:] ** 2).sum() / (spectrum(sound) ** 2).sum() for sound in (NOISE, worn)]
    assert share[1] < 0.3 * share[0]


class TestPlayed:
    """What needs FluidSynth and a soundfont."""

    @pytest.fixture(autouse=True)
    def _fluidsynth(self) -> None:
        pytest.importorskip("fluidsynth", exc_type=ImportError)
        from training.composer.stems import find_soundfonts

        if not find_soundfonts():
            pytest.skip("no soundfont: apt-get install fluid-soundfont-gm")

    def test_every_part_comes_out_by_itself(self) -> None:
        from training.composer.stems import find_soundfonts, play_parts

        score = excerpts(4, genre="tango", count=1)[0]
        score = dataclasses.replace(
            score,
            parts=tuple(
                dataclasses.replace(part, notes=tuple(note for note in part.notes if note.start >= 0), voice="")
                for part in score.parts
            ),
        )
        font = find_soundfonts()[0]
        together = play_parts(score, SECOND, font)
        assert len(together) == len(score.parts) > 2
        for part, (sound, _) in zip(score.parts, together, strict=True):
            alone = play_parts(dataclasses.replace(score, parts=(part,)), SECOND, font)[0][0]
            assert ((alone - sound) ** 2).sum() <= 1e-4 * (alone**2).sum()

    @pytest.mark.parametrize("genre", ["techno", "string_quartet", "metal", "lofi_hip_hop"])
    def test_a_record_is_stereo_loud_and_never_clips(self, genre: str) -> None:
        from training.composer.render import render

        score = excerpts(5, genre=genre, count=1)[0]
        sound = render(score)
        assert sound.shape == (2, round(score.beats * 60 * SAMPLE_RATE / score.bpm)) and sound.dtype == np.float32
        assert np.abs(sound).max() <= 0.9 + 1e-6
        assert loudness(torch.from_numpy(sound), SAMPLE_RATE) == pytest.approx(STYLES[score.mix].lufs, abs=2.5)
        side = ((sound[0] - sound[1]) ** 2).mean() / 4 / (sound.mean(0) ** 2).mean()
        assert 0.02 < side < 0.45
