"""Recordings made anew: what is kept is kept to the sample, and what is new lies on the recording's beats."""

import math
from pathlib import Path

import pytest
import torch

from riff import SpectrogramConfig
from riff.audio.io import load_audio, save_audio
from riff.music.alignment import Recording, align_to_grid, to_model_channels, to_stereo
from riff.spectrogram.tempo import TempoMap
from riff.utils.errors import RiffError

QUICK = {"num_inference_steps": 2, "quality": "fast"}
RATE = 8000
BEAT = RATE // 2  # 120 bpm


def beat_sound(bars: float, *, channels: int = 1, rate: int = RATE) -> torch.Tensor:
    """(C, T): a decaying tone on every beat at 120 bpm, louder on the first of four."""
    time = torch.arange(round(bars * 2 * rate)) / rate
    since = time % 0.5
    loud = torch.where((time // 0.5) % 4 == 0, 0.6, 0.3)
    tone = loud * torch.exp(-since * 8) * torch.sin(2 * math.pi * 330 * since)
    return torch.stack([tone * (1 - 0.5 * channel) for channel in range(channels)])


ON_BEATS = {"bpm": 120.0, "downbeat": 0.0, "sample_rate": RATE}


@pytest.mark.parametrize("which", ["pipe", "riffusion_pipe"])
def test_a_remix_is_as_long_as_the_recording_to_the_sample(which, request):
    for bars in (2, 3.3, 0.7):
        recording = beat_sound(bars)
        clip = request.getfixturevalue(which).remix(recording, "techno", seed=1, **ON_BEATS, **QUICK)
        assert clip.waveform.shape == recording.shape
        assert bool(torch.isfinite(clip.waveform).all())
        assert float(clip.waveform.abs().max()) <= 1.0


def test_stereo_stays_stereo_and_what_is_in_the_middle_stays_there(pipe):
    middle = beat_sound(2).repeat(2, 1)
    clip = pipe.remix(middle, "techno", seed=1, **ON_BEATS, **QUICK)
    assert clip.waveform.shape == middle.shape
    assert torch.equal(clip.waveform[0], clip.waveform[1])
    left = pipe.remix(beat_sound(2, channels=2) * torch.tensor([[1.0], [0.0]]), "techno", strength=0.3, seed=1,
                      **ON_BEATS, **QUICK).waveform  # fmt: skip
    assert float((left[0] - left[1]).abs().max()) > 1e-3


def side_level(sound: torch.Tensor) -> float:
    """Half the difference of left and right over half their sum."""
    return float((sound[0] - sound[1]).norm() / sound.sum(0).norm())


@pytest.mark.parametrize("width", [0.0, 0.05, 0.4])
def test_a_recording_stays_as_wide_as_it_is_however_much_is_drawn_anew(pipe, width):
    mid = beat_sound(4)[0]
    side = width * torch.randn(len(mid), generator=torch.Generator().manual_seed(2)) * mid.square().mean().sqrt()
    recording = 0.1 * torch.stack([mid + side, mid - side])
    assert side_level(recording) == pytest.approx(width, rel=0.05, abs=1e-6)
    options = {"seed": 1, **ON_BEATS, **QUICK}
    for strength in (0.3, 1.0):
        clip = pipe.remix(recording, "techno", strength=strength, **options)
        assert side_level(clip.waveform) == pytest.approx(side_level(recording), rel=1e-3, abs=1e-6)
        alone = pipe.remix(recording.mean(0, keepdim=True), "techno", strength=strength, **options)
        torch.testing.assert_close(clip.image, alone.image, rtol=1e-3, atol=1e-3)  # the sum is the mono remix
    filled = pipe.inpaint(recording, "techno", mask_start_bar=1, mask_end_bar=3, **options).waveform
    new = slice(2 * RATE + 300, 6 * RATE - 300)  # without the fades
    assert side_level(filled[:, new]) == pytest.approx(side_level(recording), rel=0.05, abs=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_what_is_fitted_is_heard_again(channels):
    recording = beat_sound(1, channels=channels)
    for config in (
        SpectrogramConfig(sample_rate=RATE, f_max=4000.0),
        SpectrogramConfig(channels=2, sample_rate=RATE, f_max=4000.0),
    ):
        heard = to_stereo(to_model_channels(Recording(recording, RATE), config))
        torch.testing.assert_close(heard, recording.expand(len(heard), -1), rtol=0, atol=1e-6)


def test_an_array_is_a_recording(pipe):
    sound = beat_sound(2)
    options = {"seed": 1, **ON_BEATS, **QUICK}
    expected = pipe.remix(sound, "techno", **options).waveform
    for array in (sound.numpy(), sound[0].numpy(), sound[0]):
        assert torch.equal(pipe.remix(array, "techno", **options).waveform, expected)


def test_a_remix_of_strength_zero_is_the_recording_through_the_autoencoder(pipe):
    from riff.diffusion.latents import image_to_latents, latents_to_image

    recording = beat_sound(2)
    clip = pipe.remix(recording, "techno", strength=0.0, seed=1, **ON_BEATS, **QUICK)
    laid = align_to_grid(Recording(recording, RATE), pipe.config, bpm=120.0, downbeat=0.0, beats_per_bar=4)
    from riff.spectrogram.image import mel_to_image
    from riff.spectrogram.mel import waveform_to_mel

    image = mel_to_image(waveform_to_mel(laid.waveform, pipe.config, bpm=laid.tempo), pipe.config)
    vae = pipe.components.vae
    expected = latents_to_image(image_to_latents(image, vae), vae, channels=1)[0]
    torch.testing.assert_close(clip.image, expected, rtol=1e-4, atol=1e-4)


def test_the_least_strength_still_changes_something(pipe):
    options = {"seed": 1, "num_inference_steps": 5, "quality": "fast", **ON_BEATS}
    recording = beat_sound(2)
    none, least, fifth = (pipe.remix(recording, "techno", strength=s, **options).waveform for s in (0.0, 0.01, 0.2))
    assert not torch.equal(none, least)
    torch.testing.assert_close(least, fifth)


def test_more_strength_leaves_less_of_the_recording(pipe):
    recording = beat_sound(2)
    images = [
        pipe.remix(recording, "techno", strength=s, seed=1, num_inference_steps=10, quality="fast", **ON_BEATS).image
        for s in (0.0, 0.1, 0.9)
    ]
    assert float((images[1] - images[0]).abs().mean()) < float((images[2] - images[0]).abs().mean())


@pytest.mark.parametrize("which", ["pipe", "riffusion_pipe"])
@pytest.mark.parametrize("channels", [1, 2])
def test_outside_the_replaced_part_every_sample_is_the_recordings(which, channels, request):
    recording = beat_sound(6, channels=channels)
    pipe = request.getfixturevalue(which)
    clip = pipe.inpaint(
        recording, "techno", mask_start_seconds=[2.0, 8.0], mask_end_seconds=[4.0, 9.0], seed=1, **ON_BEATS, **QUICK
    )
    assert clip.waveform.shape == recording.shape
    inside = torch.zeros(recording.shape[-1], dtype=torch.bool)
    inside[2 * RATE : 4 * RATE], inside[8 * RATE : 9 * RATE] = True, True
    assert torch.equal(clip.waveform[:, ~inside], recording[:, ~inside])
    for place in (slice(2 * RATE, 4 * RATE), slice(8 * RATE, 9 * RATE)):
        assert float((clip.waveform[:, place] - recording[:, place]).abs().max()) > 1e-3


def test_bars_and_seconds_name_the_same_part(pipe):
    recording, options = beat_sound(6), {"seed": 1, **ON_BEATS, **QUICK}
    in_bars = pipe.inpaint(recording, "techno", mask_start_bar=1, mask_end_bar=2, **options)
    in_seconds = pipe.inpaint(recording, "techno", mask_start_seconds=2.0, mask_end_seconds=4.0, **options)
    assert torch.equal(in_bars.waveform, in_seconds.waveform)
    # With half a bar before the first downbeat, bar 0 is the first that begins in the recording.
    late = pipe.inpaint(recording, "techno", mask_start_bar=0, mask_end_bar=1, **{**options, "downbeat": 1.0})
    assert torch.equal(late.waveform[:, :RATE], recording[:, :RATE])
    assert float((late.waveform - recording)[:, RATE : 3 * RATE].abs().max()) > 1e-3
    assert torch.equal(late.waveform[:, 3 * RATE :], recording[:, 3 * RATE :])


def test_of_a_band_only_that_band_is_replaced(pipe):
    recording = beat_sound(4) + 0.2 * torch.sin(2 * math.pi * 2500 * torch.arange(8 * RATE) / RATE)
    clip = pipe.inpaint(
        recording, "techno", mask_start_seconds=2.0, mask_end_seconds=6.0, high_hz=800.0, seed=1, **ON_BEATS, **QUICK
    )
    middle = slice(3 * RATE, 5 * RATE)
    change = torch.fft.rfft((clip.waveform - recording)[0, middle].double() * torch.hann_window(2 * RATE)).abs()
    hertz = torch.fft.rfftfreq(2 * RATE, 1 / RATE)
    assert float(change[hertz > 1000].max()) < 1e-2 * float(change[hertz < 800].max())
    assert torch.equal(clip.waveform[:, : 2 * RATE], recording[:, : 2 * RATE])


@pytest.mark.parametrize("which", ["pipe", "riffusion_pipe"])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_extended_recording_begins_with_itself_and_ends_at_a_bar(which, channels, request):
    recording = beat_sound(3.3, channels=channels)
    clip = request.getfixturevalue(which).extend(recording, "techno", bars=3, seed=1, **ON_BEATS, **QUICK)
    kept = recording.shape[-1] - round(0.03 * RATE)
    assert torch.equal(clip.waveform[:, :kept], recording[:, :kept])
    assert clip.waveform.shape == (channels, 6 * 4 * BEAT)  # 6.3 bars lie nearest to 6
    assert float(clip.waveform[:, recording.shape[-1] :].abs().max()) > 1e-3
    assert float(clip.waveform.abs().max()) <= 1.0


def test_a_recording_keeps_its_own_sample_rate(pipe):
    recording = beat_sound(3, rate=11025)
    options = {**ON_BEATS, "sample_rate": 11025, **QUICK}
    clip = pipe.inpaint(recording, "techno", mask_start_bar=1, mask_end_bar=2, seed=1, **options)
    assert clip.sample_rate == 11025
    assert torch.equal(clip.waveform[:, : 2 * 11025], recording[:, : 2 * 11025])
    assert torch.equal(clip.waveform[:, 4 * 11025 :], recording[:, 4 * 11025 :])
    longer = pipe.extend(recording, "techno", bars=1, seed=1, **options)
    assert longer.sample_rate == 11025
    assert longer.waveform.shape[-1] == pytest.approx(4 * 2 * 11025, abs=2)


def test_what_is_new_is_never_louder_than_a_file_can_hold(pipe):
    recording = beat_sound(4)
    for clip in (
        pipe.inpaint(recording, "techno", mask_start_bar=1, mask_end_bar=2, seed=1, **ON_BEATS, **QUICK),
        pipe.extend(recording, "techno", bars=1, seed=1, **ON_BEATS, **QUICK),
    ):
        assert float(clip.waveform.abs().max()) <= 1.2  # where two sounds are mixed


def test_kept_samples_survive_the_file(pipe, tmp_path: Path):
    save_audio(tmp_path / "loop.wav", beat_sound(4), RATE)
    stored, _ = load_audio(tmp_path / "loop.wav")
    clip = pipe.inpaint(
        tmp_path / "loop.wav", "techno", bpm=120.0, downbeat=0.0, mask_start_bar=1, mask_end_bar=2, seed=1, **QUICK
    )
    again, _ = load_audio(clip.save(tmp_path / "new.wav"))
    assert torch.equal(again[:, : 2 * RATE], stored[:, : 2 * RATE])
    assert torch.equal(again[:, 4 * RATE :], stored[:, 4 * RATE :])


def test_a_clip_of_riffs_own_needs_no_beats_to_be_found(pipe, tmp_path: Path):
    made = pipe("techno, 120 bpm", bars=3, seed=2, **QUICK).clips[0]
    longer = pipe.extend(made, "jazz", bars=1, seed=1, **QUICK)
    assert longer.waveform.shape[-1] == 4 * 4 * BEAT
    assert longer.bpm == 120.0
    from_file = pipe.extend(made.save(tmp_path / "made.wav"), "jazz", bars=1, seed=1, **QUICK)
    assert from_file.waveform.shape == longer.waveform.shape
    assert from_file.bpm == 120.0


def test_beats_that_are_given_by_nobody_are_found(pipe):
    recording = torch.cat([torch.zeros(1, RATE // 4), beat_sound(4)], dim=1)
    laid = align_to_grid(Recording(recording, RATE), pipe.config, bpm=None, downbeat=None, beats_per_bar=4)
    assert laid.bpm == pytest.approx(120.0, rel=0.01)
    beats = laid.tempo.beats_at(torch.tensor([(laid.lead + RATE / 4) / RATE]))
    assert float(abs(beats - beats.round())) < 0.05  # the first tone falls on a beat


def beatless(seconds: float = 6.0) -> dict[str, torch.Tensor]:
    """(1, T) sounds without a beat, and one that is shorter than a bar."""
    time = torch.arange(round(seconds * RATE)) / RATE
    noise = torch.randn(1, len(time), generator=torch.Generator().manual_seed(5))
    rumble = torch.fft.irfft(torch.fft.rfft(noise) / (1 + torch.arange(len(time) // 2 + 1)), n=len(time))
    sine = torch.sin(2 * math.pi * 440 * time)[None]
    return {
        "silence": torch.zeros(1, len(time)),
        "noise": 0.1 * noise,
        "rumble": 0.3 * rumble / rumble.abs().max(),
        "one sine": 0.3 * sine,
        "a swell": 0.3 * sine * (1 - torch.cos(2 * math.pi * time / seconds)) / 2,
        "shorter than a bar": beat_sound(0.4),
    }


@pytest.mark.parametrize("name", beatless())
def test_without_a_beat_the_grid_lies_in_seconds_and_that_is_said(pipe, name):
    config, recording = pipe.config, Recording(beatless()[name], RATE)
    with pytest.warns(UserWarning) as said:
        laid = align_to_grid(recording, config, bpm=None, downbeat=None, beats_per_bar=4, fallback_bpm=96.0)
    assert len(said) == 1
    line = str(said[0].message)
    assert (
        "aligned with seconds instead, as an even grid of 96 bpm (0.625 s a beat); pass bpm" in line
        and "\n" not in line
    )
    # Columns are equally long, and the first one begins with the recording.
    columns = torch.arange(0, 96, dtype=torch.float64)
    seconds = laid.tempo.seconds_at(columns / config.frames_per_beat)
    torch.testing.assert_close(seconds, columns * 0.625 / config.frames_per_beat)
    assert (laid.lead, laid.beats) == (0, "none")
    assert torch.equal(laid.waveform / laid.gain, recording.waveform[None]) or laid.gain != 1.0


@pytest.mark.parametrize("name", ["silence", "noise", "shorter than a bar"])
def test_a_recording_without_a_beat_is_edited_in_the_prompts_tempo(pipe, name):
    recording = beatless(4.0)[name]
    with pytest.warns(UserWarning, match="an even grid of 96 bpm"):
        clip = pipe.remix(recording, "techno, 96 bpm", seed=1, sample_rate=RATE, **QUICK)
    assert clip.waveform.shape == recording.shape
    assert bool(torch.isfinite(clip.waveform).all())
    assert clip.bpm == pytest.approx(96.0)
    assert clip.settings["beats"] == "none"
    with pytest.warns(UserWarning, match="an even grid of 96 bpm"):
        longer = pipe.extend(recording, "techno, 96 bpm", bars=1, seed=1, sample_rate=RATE, **QUICK)
    bar = 4 * 0.625 * RATE
    assert longer.waveform.shape[-1] == bar * max(math.floor(recording.shape[-1] / bar) + 1,
                                                  round(recording.shape[-1] / bar + 1))  # fmt: skip


def test_without_a_beat_a_downbeat_that_is_given_is_kept(pipe):
    with pytest.warns(UserWarning, match="an even grid of 120 bpm"):
        laid = align_to_grid(
            Recording(torch.zeros(1, 4 * RATE), RATE), pipe.config, bpm=None, downbeat=0.5, beats_per_bar=4
        )
    assert laid.lead == round(1.5 * RATE)


def test_where_a_tempo_is_known_nothing_is_said(pipe, recwarn):
    recording = Recording(beatless()["noise"], RATE)
    laid = align_to_grid(recording, pipe.config, bpm=90.0, downbeat=None, beats_per_bar=4, fallback_bpm=96.0)
    assert (laid.beats, laid.bpm) == ("given", pytest.approx(90.0))
    assert not recwarn


def test_pictures_in_seconds_take_the_prompts_tempo_for_their_bars(riffusion_pipe, recwarn):
    """They need no beats, so none are looked for; only extending counts bars."""
    longer = riffusion_pipe.extend(beat_sound(3), "techno, 96 bpm", bars=1, seed=1, sample_rate=RATE, **QUICK)
    assert longer.waveform.shape[-1] == 3 * 4 * 0.625 * RATE  # 2.4 bars of 96 bpm, and to the bar line after
    assert not [warning for warning in recwarn if "grid" in str(warning.message)]


def test_a_steady_recording_is_laid_with_its_downbeat_on_the_first_column():
    config = SpectrogramConfig(sample_rate=RATE, n_fft=1024, win_length=512, n_mels=32, f_max=4000.0)
    laid = align_to_grid(Recording(beat_sound(2), RATE), config, bpm=120.0, downbeat=0.5, beats_per_bar=4)
    assert laid.lead == round(1.5 * RATE)
    assert laid.tempo == TempoMap.constant(120.0)
    assert float(laid.waveform[..., : laid.lead].abs().max()) == 0.0


def test_a_quiet_recording_is_drawn_at_the_models_level_and_played_at_its_own(pipe):
    recording = beat_sound(4)
    louder, quiet = (
        pipe.extend(recording * gain, "techno", bars=1, seed=1, **ON_BEATS, **QUICK).waveform for gain in (2**-7, 2**-9)
    )
    # Powers of two, so that floats scale exactly: recovering phases makes another sound of a last digit.
    torch.testing.assert_close(quiet * 4, louder, rtol=0.01, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_start_seconds": 1.0}, "mask_start_seconds has 1 values and mask_end_seconds 0"),
        ({}, "either in seconds or in bars"),
        ({"mask_start_seconds": 1.0, "mask_end_seconds": 2.0, "mask_start_bar": 0, "mask_end_bar": 1}, "either in"),
        ({"mask_start_seconds": 2.0, "mask_end_seconds": 1.0}, "use 0 <= start < end"),
        ({"mask_start_seconds": 1.0, "mask_end_seconds": 99.0}, "recording of 4 s"),
        ({"mask_start_seconds": float("nan"), "mask_end_seconds": 1.0}, "mask_start_seconds is nan"),
        ({"mask_start_bar": 0, "mask_end_bar": 1, "low_hz": 900.0, "high_hz": 800.0}, "low_hz below high_hz"),
        ({"mask_start_bar": 0, "mask_end_bar": 1, "low_hz": 1.0, "high_hz": 1.1}, "holds no row"),
    ],
)
def test_a_wrong_part_is_one_line(pipe, options, message):
    with pytest.raises(RiffError, match=message):
        pipe.inpaint(beat_sound(2), "techno", seed=1, **ON_BEATS, **QUICK, **options)


@pytest.mark.parametrize(
    ("audio", "options", "message"),
    [
        (torch.zeros(1, 8), {"sampling_rate": None}, "give sample_rate"),
        (torch.zeros(3, 8), {}, r"use \(T,\), \(1, T\) or \(2, T\)"),
        (torch.full((1, 800), float("nan")), {}, "NaN"),
        (3, {}, "audio is a int"),
        ("missing.wav", {}, "missing.wav"),
        (torch.zeros(1, 4 * RATE), {"bpm": 1000.0}, "bpm is 1000"),
        (torch.zeros(1, 4 * RATE), {"strength": 2.0}, "strength is 2"),
        (torch.zeros(1, 4 * RATE), {"downbeat": -1.0}, "downbeat is -1"),
    ],
)
def test_a_recording_that_cannot_be_used_is_one_line(pipe, audio, options, message):
    with pytest.raises(RiffError, match=message) as caught:
        pipe.remix(audio, "techno", seed=1, **{**ON_BEATS, **QUICK, **options})
    assert "\n" not in str(caught.value)
