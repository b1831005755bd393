"""Waveform to mel and back: exact lengths, torchaudio and librosa as oracles, one mechanism for every tempo."""

import dataclasses
import functools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.inversion.filters import (
    Filters,
    SparseFilters,
    inversion_geometry,
    mel_basis,
    mel_to_linear,
    mel_to_linear_compiled,
)
from riff.spectrogram.inversion.pghi import pghi
from riff.spectrogram.inversion.projections import CompiledIteration, TensorIteration
from riff.spectrogram.inversion.solver import PRESETS, first_phase, griffin_lim, invert
from riff.spectrogram.inversion.stft import CircularSTFT
from riff.spectrogram.inversion.waveform import MelFrames, frames_to_waveform, mel_to_waveform
from riff.spectrogram.mel import mel_filterbank, waveform_to_mel
from riff.utils.errors import RiffError
from riff.utils.parallel import mapping

RIFFUSION = SpectrogramConfig.riffusion()
BEATS = SpectrogramConfig()
SMALL = SpectrogramConfig(
    sample_rate=8000,
    n_fft=1024,
    win_length=512,
    hop_length=64,
    n_mels=64,
    f_min=0,
    f_max=4000,
    grid="seconds",
)


def chirps(seconds: float, sample_rate: int, channels: int = 1) -> torch.Tensor:
    """A few gliding tones with decays and clicks: pitched and struck sound without a soundfont."""
    time = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    sound = torch.zeros_like(time)
    for index, start in enumerate(np.arange(0.0, seconds, 0.25)):
        local = (time - start).clamp(min=0)
        gate = (time >= start) * torch.exp(-6 * local)
        for harmonic in range(1, 6):
            frequency = 110 * 2 ** ((index * 7 % 12) / 12) * harmonic
            sound += gate * torch.sin(2 * math.pi * frequency * local) / harmonic
    sound = (0.2 * sound / sound.abs().max()).float()
    return torch.stack([sound, sound.flip(0)][:channels])


def convergence_db(estimate: torch.Tensor, target: torch.Tensor) -> float:
    gain = (estimate * target).sum() / estimate.square().sum()
    return 20 * math.log10(float((estimate * gain - target).norm() / target.norm()))


@pytest.mark.parametrize("norm", [None, "slaney"])
@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_filterbank_equals_torchaudios(scale, norm):
    functional = pytest.importorskip("torchaudio.functional")
    config = SpectrogramConfig(mel_scale=scale, norm=norm, n_mels=80)
    oracle = functional.melscale_fbanks(
        config.n_fft // 2 + 1, config.f_min, config.f_max, 80, config.sample_rate, norm=norm, mel_scale=scale
    ).T
    torch.testing.assert_close(mel_filterbank(config), oracle, atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", [RIFFUSION, BEATS], ids=["riffusion", "riff-mini"])
def test_no_filter_is_empty(config):
    assert float(mel_filterbank(config).sum(1).min()) > 0


def test_mel_of_riffusions_config_equals_torchaudios_mel_spectrogram():
    transforms = pytest.importorskip("torchaudio.transforms")
    sound = chirps(1.5, 44100)
    oracle = transforms.MelSpectrogram(
        44100, 17640, 4410, 441, f_min=0, f_max=10000, n_mels=512, power=1.0, norm=None, mel_scale="htk"
    )(sound)
    mel = waveform_to_mel(sound, RIFFUSION)
    # Theirs has one more frame, centred on the end of the sound; the frames before it mirror that end alike.
    torch.testing.assert_close(mel, oracle[..., : mel.shape[-1]], atol=1e-3 * float(oracle.max()), rtol=0)


def test_columns_that_fit_the_sound_exactly_are_counted_exactly():
    assert waveform_to_mel(torch.zeros(1, 441 * 20), RIFFUSION).shape == (1, 512, 20)
    assert waveform_to_mel(torch.zeros(1, 441 * 20 + 5), RIFFUSION).shape == (1, 512, 21)


@pytest.mark.parametrize("bpm", [50.0, 84.0, 120.0, 133.7, 180.0])
def test_beats_give_their_exact_number_of_samples_and_columns_at_any_tempo(bpm):
    columns = 2 * BEATS.frames_per_beat
    samples = BEATS.frames_to_samples(columns, bpm=bpm)
    assert samples == round(2 * 60 / bpm * 44100)
    assert waveform_to_mel(torch.zeros(1, samples), BEATS, bpm=bpm).shape[-1] == columns
    assert mel_to_waveform(torch.zeros(1, 256, columns), BEATS, bpm=bpm, n_iter=1).shape[-1] == samples


@pytest.mark.parametrize("columns", [1, 7, 40])
def test_length_is_exactly_columns_times_hop(columns):
    mel = torch.rand(1, 64, columns, generator=torch.Generator().manual_seed(0))
    assert mel_to_waveform(mel, SMALL, n_iter=2).shape == (1, columns * 64)


def test_a_click_on_a_beat_lies_in_the_same_column_at_every_tempo():
    for bpm in (60.0, 97.0, 150.0):
        samples = BEATS.frames_to_samples(4 * 32, bpm=bpm)
        sound = torch.zeros(1, samples)
        sound[0, round(2 * 60 / bpm * 44100)] = 1.0
        mel = waveform_to_mel(sound, BEATS, bpm=bpm)
        assert int(mel[0].sum(0).argmax()) == 64


def test_the_general_grid_equals_a_hop_of_its_own_where_the_tempo_gives_a_whole_hop():
    bpm = 60 * 44100 / (32 * 700)  # 700 samples a column
    sound = chirps(1.0, 44100)
    own_hop = SpectrogramConfig(hop_length=700, grid="seconds")
    torch.testing.assert_close(waveform_to_mel(sound, BEATS, bpm=bpm), waveform_to_mel(sound, own_hop))


def test_griffin_lim_equals_torchaudios_from_the_same_phase():
    functional = pytest.importorskip("torchaudio.functional")
    generator = torch.Generator().manual_seed(0)
    magnitude = torch.rand(2, 129, 30, generator=generator)
    window = torch.hann_window(256)
    oracle = functional.griffinlim(magnitude, window, 256, 64, 256, 1.0, 20, 0.99, 29 * 64, False)
    ours = griffin_lim(
        magnitude,
        CircularSTFT(256, 256, 64),
        length=29 * 64,
        n_iter=20,
        phase=torch.ones(2, 129, 30, dtype=torch.complex64),
    )
    torch.testing.assert_close(ours, oracle, atol=1e-4, rtol=1e-3)


def test_the_gpus_first_phase_is_nearer_than_a_random_one():
    sound = chirps(1.0, 44100)
    ring = CircularSTFT(4096, 4096, 512)
    sound = torch.nn.functional.pad(sound, (0, 88 * 512 - 44100))
    everything = ring.weight(torch.ones(88, dtype=torch.bool))
    errors = {}
    for parallel in (True, False):
        frames, phase = phase_of(sound, ring, parallel=parallel)
        drawn = ring.to_frames(ring.to_ring(torch.polar(frames.abs(), phase), everything))
        errors[parallel] = convergence_db(drawn.abs(), frames.abs())
    random = torch.rand(frames.shape, generator=torch.Generator().manual_seed(0)) * 6.283
    drawn = ring.to_frames(ring.to_ring(torch.polar(frames.abs(), random), everything))
    assert errors[False] < errors[True] < convergence_db(drawn.abs(), frames.abs()) - 3


@pytest.mark.parametrize("n_iter", [4, 8, 16, 32])
def test_recovered_sound_is_at_least_as_close_as_the_textbooks_after_as_many_iterations(n_iter):
    sound = chirps(1.5, 44100)
    bpm = 112.0
    mel = waveform_to_mel(sound, BEATS, bpm=bpm)
    errors = {}
    for quality in ("default", "griffin-lim"):
        rebuilt = mel_to_waveform(mel, BEATS, bpm=bpm, n_iter=n_iter, quality=quality)
        errors[quality] = convergence_db(waveform_to_mel(rebuilt, BEATS, bpm=bpm)[..., : mel.shape[-1]], mel)
    assert errors["default"] <= errors["griffin-lim"]
    assert errors["default"] < -14


@pytest.mark.parametrize("config", [BEATS, RIFFUSION], ids=["riff-mini", "riffusion"])
def test_more_work_comes_closer(config):
    sound = chirps(1.5, 44100)
    mel = waveform_to_mel(sound, config, bpm=112.0)
    errors = {}
    for quality in ("fast", "default", "high", "best"):
        rebuilt = mel_to_waveform(mel, config, bpm=112.0, quality=quality)
        errors[quality] = convergence_db(waveform_to_mel(rebuilt, config, bpm=112.0)[..., : mel.shape[-1]], mel)
    # On these few tones fast and default are alike; on music (training.measure.inversion) they are not.
    assert errors["best"] < errors["high"] < min(errors["default"], errors["fast"]) < -20


def phase_of(sound: torch.Tensor, ring: CircularSTFT, **how: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The frames of a sound on a ring, and the phases that are found for their magnitudes."""
    frames = ring.to_frames(sound)
    known = torch.zeros(frames.shape[1], dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    given = torch.zeros(frames.shape)
    return frames, first_phase(frames.abs(), ring, generator=generator, known=known, given=given, **how)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("n_fft", [512, 1024])
def test_phase_of_a_steady_tone_turns_at_its_frequency(parallel, n_fft):
    ring = CircularSTFT(n_fft, 512, 64)
    sound = torch.sin(2 * math.pi * 1000 * torch.arange(8192) / 8000)[None]
    frames, phase = phase_of(sound, ring, parallel=parallel)
    row = n_fft // 8  # 1000 Hz
    true_turn = (frames[0, 41:80, row] * frames[0, 40:79, row].conj()).angle()
    error = phase[0, 41:80, row] - phase[0, 40:79, row] - true_turn
    torch.testing.assert_close(error.cos(), torch.ones(39), atol=0.05, rtol=0)


def test_phase_of_a_click_puts_all_bins_at_its_moment():
    ring = CircularSTFT(512, 512, 64)
    sound = torch.zeros(1, 4096)
    sound[0, 2000] = 1.0
    _, phase = phase_of(sound, ring, parallel=False)
    # In the frame whose centre it is nearest to, phases of a click fall by 2 pi / n_fft for each sample and bin.
    frame = (2000 - 256) // 64
    delay = 2000 - frame * 64
    slope = (phase[0, frame, 41:200] - phase[0, frame, 40:199] + 2 * math.pi * delay / 512).cos()
    assert float(slope.mean()) > 0.99


@pytest.mark.parametrize("away", [0.1, 0.2, 0.3, 0.4])
def test_phase_of_a_click_far_from_the_middle_still_points_at_it(away):
    # A click t after the middle of a Hann window of W is cos^2(pi t / W) in every bin; its phases fall by 2 pi t / L.
    # The line that a Gaussian has in place of the tangent points 0.8 rad past it at 0.3 of a window, then ever further.
    window, hop = 512, 16
    magnitude = np.zeros((8, 257), np.float32)
    for frame, share in ((3, 0.05), (4, 1.0), (5, 0.05)):  # so loud that the frame's phase is its own slopes' alone
        magnitude[frame] = share * math.cos(math.pi * (away - (frame - 4) * hop / window)) ** 2
    found = pghi(magnitude, np.zeros_like(magnitude), CircularSTFT(window, window, hop))
    fall = found[4, :-1] - found[4, 1:]
    np.testing.assert_allclose(fall, 2 * math.pi * away, atol=0.05)


@pytest.mark.parametrize("parallel", [False, True])
def test_settled_frames_keep_their_phase_and_pass_it_on(parallel):
    ring = CircularSTFT(512, 512, 64)
    sound = torch.sin(2 * math.pi * 1000 * torch.arange(8192) / 8000 + 0.7)[None]
    frames = ring.to_frames(sound)
    known = torch.zeros(frames.shape[1], dtype=torch.bool)
    known[10:30] = True
    generator = torch.Generator().manual_seed(0)
    phase = first_phase(frames.abs(), ring, generator=generator, known=known, given=frames.angle(), parallel=parallel)
    error = (phase - frames.angle())[0, :, 64].cos()
    torch.testing.assert_close(error[10:30], torch.ones(20), atol=1e-4, rtol=0)
    assert float(error[30:45].min()) > 0.85


def test_bins_too_faint_to_tell_keep_their_random_phase():
    magnitude = np.zeros((4, 9), np.float32)
    magnitude[1, 3] = 1.0
    start = np.random.default_rng(0).random((4, 9)).astype(np.float32)
    found = pghi(magnitude, start, CircularSTFT(16, 16, 4))
    assert np.array_equal(found, start)


@pytest.mark.parametrize("padding", [1, 2])
def test_inverse_mel_reproduces_the_mel(padding):
    mel = waveform_to_mel(chirps(0.5, 8000), SMALL)[0].T
    basis = mel_basis(SMALL, padding)
    linear = mel_to_linear(mel, Filters.of(basis), n_iter=30)
    assert float((linear < 0).sum()) == 0
    assert float((linear @ basis.T - mel).norm() / mel.norm()) < 0.02


@pytest.mark.parametrize("config", [BEATS, RIFFUSION, SMALL], ids=["riff-mini", "riffusion", "small"])
def test_sparse_filters_are_the_whole_filterbank(config):
    basis = mel_basis(config, 2)
    filters, sparse = Filters.of(basis), SparseFilters.of(Filters.of(basis))
    generator = torch.Generator().manual_seed(0)
    linear, mel = torch.rand(3, basis.shape[1], generator=generator), torch.rand(3, len(basis), generator=generator)
    columns = [torch.from_numpy(sparse.gather(linear.T.numpy())), torch.from_numpy(sparse.spread(mel.T.numpy()))]
    torch.testing.assert_close(columns[0].T, filters.gather(linear))
    torch.testing.assert_close(columns[1].T, filters.spread(mel))
    torch.testing.assert_close(filters.spread(mel), mel @ (basis / basis.sum(0).clamp(min=1e-12)))


def test_compiled_inverse_mel_equals_the_plain_one():
    mel = waveform_to_mel(chirps(0.7, 8000, channels=2), dataclasses.replace(SMALL, channels=2)).transpose(1, 2)
    basis = mel_basis(SMALL, 2)
    plain, sparse = Filters.of(basis), SparseFilters.of(Filters.of(basis))
    torch.testing.assert_close(mel_to_linear_compiled(mel, sparse), mel_to_linear(mel, plain), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("config", [BEATS, RIFFUSION], ids=["riff-mini", "riffusion"])
@pytest.mark.parametrize("stride", [1, 3])
def test_a_compiled_iteration_equals_the_plain_one(config, stride):
    ring = inversion_geometry(config).doubled()
    generator = torch.Generator().manual_seed(0)
    mel = torch.rand(2, 75, config.n_mels, generator=generator)
    sound = torch.randn(2, 75 * ring.hop_length, generator=generator)
    active = torch.arange(75) < 70
    filters = Filters.of(mel_basis(config, 2))
    plain = TensorIteration(mel, ring, active, filters)
    fast = CompiledIteration(mel, ring, active, SparseFilters.of(filters))
    expected = found = sound
    for visit in range(2 * stride):
        how = {"first": visit % stride, "stride": stride, "momentum": 0.5}
        expected, found = plain.step(expected, **how), fast.step(found, **how)
        torch.testing.assert_close(found, expected, atol=2e-3 * float(expected.abs().max()), rtol=0)


def test_any_number_of_threads_gives_a_compiled_iteration_the_same_bits_and_one_nearly_those():
    ring = inversion_geometry(RIFFUSION).doubled()
    generator = torch.Generator().manual_seed(0)
    mel = torch.rand(2, 200, RIFFUSION.n_mels, generator=generator)
    sound = torch.randn(2, 200 * ring.hop_length, generator=generator)
    filters = SparseFilters.of(Filters.of(mel_basis(RIFFUSION, 2)))

    def visited(threads):
        with mapping(threads) as each:
            assert (each is map) == (threads == 1)
            iteration, found = CompiledIteration(mel, ring, torch.ones(200) > 0, filters, each), sound
            for momentum in (0.0, 0.5, 0.5):
                found = iteration.step(found, momentum=momentum)
            return found, mel_to_linear_compiled(mel, filters, each=each)

    for one, two, three in zip(visited(1), visited(2), visited(3), strict=True):
        assert torch.equal(two, three)
        torch.testing.assert_close(one, two, atol=2e-3 * float(two.abs().max()), rtol=0)


def test_a_caller_in_inference_mode_gets_the_same_sound_on_several_threads():
    # The compiled loops write into tensors made by the caller's thread, from threads of their own.
    mel = waveform_to_mel(chirps(1.0, 8000), SMALL)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = mel_to_waveform(mel, SMALL)
        with torch.inference_mode():
            found = mel_to_waveform(mel, SMALL)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("loop", [False, True])
def test_the_compiled_inversion_equals_the_plain_one(loop, monkeypatch):
    mel = waveform_to_mel(chirps(1.0, 8000), SMALL)
    fast = mel_to_waveform(mel, SMALL, loop=loop)
    monkeypatch.setattr("riff.spectrogram.inversion.waveform.invert", functools.partial(invert, compiled=False))
    plain = mel_to_waveform(mel, SMALL, loop=loop)
    assert 20 * math.log10(float((fast - plain).norm() / plain.norm())) < -30


@pytest.mark.parametrize("config", [BEATS, RIFFUSION, SMALL], ids=["riff-mini", "riffusion", "small"])
def test_engine_holds_the_band_with_whole_hops_and_windows(config):
    engine = inversion_geometry(config)
    rate = config.sample_rate * engine.low.hop_length / config.hop_length
    assert 2 * config.f_max <= rate <= config.sample_rate
    assert engine.low.win_length * config.hop_length == config.win_length * engine.low.hop_length


def test_doubled_basis_gives_the_mel_of_a_sounds_own_magnitudes():
    sound = chirps(1.0, 44100)
    mel = waveform_to_mel(sound, RIFFUSION)[0].T
    half = RIFFUSION.win_length // 2
    ring = CircularSTFT(2 * RIFFUSION.win_length, RIFFUSION.win_length, RIFFUSION.hop_length)
    padded = torch.nn.functional.pad(sound, (half, 8 * RIFFUSION.hop_length - half))
    basis = mel_basis(RIFFUSION, 2)
    guessed = ring.to_frames(padded)[0, :, : basis.shape[1]].abs() @ basis.T
    inner = slice(10, 90)
    assert float((guessed[inner] - mel[inner]).norm() / mel[inner].norm()) < 0.03


def test_ring_goes_to_frames_and_back():
    ring = CircularSTFT(300, 256, 64)
    sound = torch.randn(2, 20 * 64, generator=torch.Generator().manual_seed(0))
    everything = ring.weight(torch.ones(20, dtype=torch.bool))
    torch.testing.assert_close(ring.to_ring(ring.to_frames(sound), everything), sound, atol=1e-5, rtol=0)
    turned = ring.to_frames(sound.roll(3 * 64, 1))
    torch.testing.assert_close(turned, ring.to_frames(sound).roll(3, 1))


def test_ring_shorter_than_its_window_goes_round():
    ring = CircularSTFT(256, 256, 64)
    sound = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ring.to_frames(sound), ring.to_frames(sound.repeat(1, 5))[:, :1])


@pytest.mark.parametrize("bpm", [84.0, 133.0])
def test_a_loop_has_no_edge(bpm):
    # Tones whose periods divide the loop: the perfect answer is known, and it has no seam.
    n_samples = BEATS.frames_to_samples(64, bpm=bpm)
    time = torch.arange(3 * n_samples, dtype=torch.float64)
    cycles = [round(hz * n_samples / 44100) for hz in (220.0, 440.0, 1760.0)]
    beat = torch.exp(-6.0 * (time.remainder(n_samples / 2)) / 44100)
    sound = 0.1 * beat * sum(torch.sin(2 * math.pi * k * time / n_samples) for k in cycles)
    mel = waveform_to_mel(sound.float()[None], BEATS, bpm=bpm)[..., 64:128]  # the middle pass
    looped = mel_to_waveform(mel, BEATS, bpm=bpm, loop=True)
    assert looped.shape == (1, n_samples)
    thrice = waveform_to_mel(looped.repeat(1, 3), BEATS, bpm=bpm)[..., 64:128]
    assert convergence_db(thrice, mel) < -15
    steps = looped[0].repeat(2).diff().abs()
    assert float(steps[n_samples - 1]) <= float(steps[:n_samples].max())
    # Played round, the seam is as near to the asked picture as the rest.
    error = (thrice - mel).square().sum((0, 1))
    seam = torch.cat([error[:4], error[-4:]]).mean()
    assert float(seam) < 4 * float(error[28:36].mean())


def test_blocks_agree_with_the_whole():
    # A steady chord leaves no phase to chance, so blocks and whole must be one sound up to its start's phase.
    config = SpectrogramConfig(**{**SMALL.to_dict(), "n_mels": 128})
    time = torch.arange(400 * 64) / 8000
    sound = 0.2 * sum(torch.sin(2 * math.pi * hz * time) for hz in (250.0, 1000.0, 2500.0))[None]
    frames = MelFrames(waveform_to_mel(sound, config), lambda frames: frames, 400)
    preset = PRESETS["high"]
    whole, blocks = (
        frames_to_waveform(
            frames, config, preset, length=400 * 64, block=block, generator=torch.Generator().manual_seed(0)
        )
        for block in (1000, 64)
    )
    spectra = [
        torch.stft(y, 512, 64, window=torch.hann_window(512), return_complex=True).abs() for y in (whole, blocks)
    ]
    assert convergence_db(spectra[1], spectra[0]) < -25
    # No click where blocks meet: the steps of a chord are bounded by its frequencies.
    assert float(blocks[0, 600:-600].diff().abs().max()) < 1.1 * float(whole[0, 600:-600].diff().abs().max())


def peak_megabytes(columns: int) -> int:
    """Resident memory at most, in a process that plays so many columns of Riffusion's."""
    script = """
import resource, sys, torch
from riff import SpectrogramConfig, mel_to_waveform
torch.set_num_threads(1)
mel = torch.rand(1, 512, int(sys.argv[1]), generator=torch.Generator().manual_seed(0))
sound = mel_to_waveform(mel, SpectrogramConfig.riffusion(), quality="fast")
assert sound.shape[1] == 441 * mel.shape[2] and bool(sound.isfinite().all())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    command = [sys.executable, "-c", script, str(columns)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_memory_does_not_grow_with_length_beyond_picture_and_sound():
    # 36 s more are 7 MB of picture and 10 MB of sound at both rates, with a few copies of each.
    assert peak_megabytes(4800) - peak_megabytes(1200) < 120


@pytest.mark.slow
def test_ten_minutes_take_the_memory_of_picture_and_sound_alone():
    # 123 MB of picture and 154 MB of sound at both rates, with a few copies of each.
    assert peak_megabytes(60000) - peak_megabytes(1200) < 1000


@pytest.mark.parametrize("stereo", ["mid-side", "left-right"])
def test_stereo_channels_come_back_on_their_own_side(stereo):
    config = SpectrogramConfig(**{**SMALL.to_dict(), "channels": 2, "stereo": stereo})
    sound = chirps(1.0, 8000, channels=2)
    sound[1] *= 0.1
    rebuilt = mel_to_waveform(waveform_to_mel(sound, config), config)
    assert rebuilt.shape == (2, 8000)
    if stereo == "left-right":
        assert float(rebuilt[0].square().mean()) > 10 * float(rebuilt[1].square().mean())


def test_mid_and_side_are_half_sum_and_half_difference():
    config = SpectrogramConfig(**{**SMALL.to_dict(), "channels": 2, "stereo": "mid-side"})
    sound = chirps(0.5, 8000, channels=2)
    mid_side = torch.stack([(sound[0] + sound[1]) / 2, (sound[0] - sound[1]) / 2])
    left_right = SpectrogramConfig(**{**SMALL.to_dict(), "channels": 2, "stereo": "left-right"})
    torch.testing.assert_close(waveform_to_mel(sound, config), waveform_to_mel(mid_side, left_right))


def test_batches_equal_single_clips():
    mel = torch.rand(3, 1, 64, 20, generator=torch.Generator().manual_seed(2))
    batch = mel_to_waveform(mel, SMALL, n_iter=4)
    for index in range(3):
        torch.testing.assert_close(mel_to_waveform(mel[index], SMALL, n_iter=4), batch[index], atol=1e-5, rtol=1e-3)


def test_same_generator_seed_same_samples_and_global_state_is_left_alone():
    mel = torch.rand(1, 64, 20, generator=torch.Generator().manual_seed(2))
    state = torch.get_rng_state()
    first, second = (mel_to_waveform(mel, SMALL, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_silence_stays_silence():
    waveform = mel_to_waveform(torch.zeros(1, 64, 12), SMALL)
    assert bool(torch.isfinite(waveform).all())
    assert float(waveform.abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: waveform_to_mel(torch.zeros(2, 100), SMALL), r"needs \(\.\.\., 1, samples\)"),
        (lambda: waveform_to_mel(torch.zeros(1, 0), SMALL), "empty"),
        (lambda: waveform_to_mel(torch.zeros(1, 9000), BEATS), "needs a tempo"),
        (lambda: mel_to_waveform(torch.zeros(1, 63, 5), SMALL), "needs"),
        (lambda: mel_to_waveform(torch.full((1, 64, 5), math.nan), SMALL), "NaN"),
        (lambda: mel_to_waveform(torch.full((1, 64, 5), math.inf), SMALL), "infinite"),
        (lambda: mel_to_waveform(torch.zeros(1, 64, 0), SMALL), "columns"),
        (lambda: mel_to_waveform(-torch.ones(1, 64, 5), SMALL), "negative"),
        (lambda: mel_to_waveform(torch.ones(1, 64, 5), SMALL, n_iter=-1), "n_iter is -1"),
        (lambda: mel_to_waveform(torch.ones(1, 64, 5), SMALL, quality="hifi"), "quality is 'hifi'"),  # type: ignore[arg-type]
        (lambda: mel_to_waveform(torch.ones(1, 64, 5), SMALL, quality="griffin-lim", loop=True), "cannot loop"),
        (lambda: mel_to_waveform(torch.ones(1, 256, 5), BEATS, bpm=math.nan), "bpm is nan"),
    ],
)
def test_bad_input_gets_one_clear_line(call, message):
    with pytest.raises(RiffError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
