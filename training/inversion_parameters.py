"""Pictures like riff-mini's with one parameter changed, through 8 bits and the default inversion and back.

Bins, columns and the band change what a model has to draw; the window and the transform change only what is in the
picture. Figures do not depend on the picture's own geometry: ``linear`` and ``onsets`` are those of
training.measure_inversion, up to 10 kHz; ``spectrum`` is the mean difference of log-spectra up to 20 kHz in decibels,
in 23 ms frames, of what is within 60 dB of the loudest.
"""

import dataclasses
import statistics

import torch
from torch import Tensor

from riff.config import SpectrogramConfig
from riff.image import image_to_mel, mel_to_image
from riff.spectrogram import mel_to_waveform, waveform_to_mel
from training.measure_inversion import Figures, convergence, onset_strength

BPM = 112.0
OWN = SpectrogramConfig()
CHANGES: tuple[dict[str, float], ...] = (
    {},
    {"win_length": 2048, "hop_length": 256},
    {"win_length": 3072, "hop_length": 384},
    {"win_length": 6144, "hop_length": 512},
    {"hop_length": 384},
    {"hop_length": 1024},
    {"n_mels": 192},
    {"n_mels": 320},
    {"n_mels": 384, "n_fft": 16384},
    {"n_mels": 512, "n_fft": 16384},
    {"f_max": 10000.0},
    {"f_max": 12000.0},
    {"f_max": 20000.0},
    {"frames_per_beat": 16},
    {"frames_per_beat": 24},
    {"frames_per_beat": 48},
    {"db_range": 60.0},
    {"db_range": 90.0},
)


def round_trip(clip: Tensor, config: SpectrogramConfig) -> Figures:
    """How near the sound of a clip's picture is to the clip (T,)."""
    picture = (mel_to_image(waveform_to_mel(clip[None], config, bpm=BPM), config) * 255.0).round() / 255.0
    sound = mel_to_waveform(image_to_mel(picture, config), config, bpm=BPM)[0, : len(clip)]
    top = int(10000 / config.sample_rate * 2048)
    clip = clip[: len(sound)]
    linear = [_spectrum(x, 2048)[:top] for x in (sound, clip)]
    wide = [_spectrum(x, 1024)[: int(20000 / config.sample_rate * 1024)] for x in (sound, clip)]
    loudest = float(wide[1].max())
    logs = [20.0 * (x / loudest).clamp(min=1e-3).log10() for x in wide]
    return {
        "linear": convergence(*linear),
        "onsets": float(torch.corrcoef(torch.stack([onset_strength(sound), onset_strength(clip)]))[0, 1]),
        "spectrum": float((logs[0] - logs[1]).abs().mean()),
    }


def _spectrum(sound: Tensor, n_fft: int) -> Tensor:
    return torch.stft(sound, n_fft, n_fft // 4, window=torch.hann_window(n_fft), return_complex=True).abs()


def parameters_table(clips: list[Tensor]) -> str:
    """Means over the clips (T,) for every change, as a Markdown table; ``pixels`` is per beat, of riff-mini's."""
    lines = ["| changed | pixels | linear dB | onsets | spectrum dB |", "|---|---|---|---|---|"]
    for change in CHANGES:
        config = dataclasses.replace(OWN, **change)  # type: ignore[arg-type]
        rows = [round_trip(clip, config) for clip in clips]
        mean = {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}
        pixels = config.n_mels * config.frames_per_beat / (OWN.n_mels * OWN.frames_per_beat)
        name = ", ".join(f"{key} {value:g}" for key, value in change.items()) or "nothing"
        lines.append(
            f"| {name} | {pixels:.2f} | {mean['linear']:.2f} | {mean['onsets']:.3f} | {mean['spectrum']:.2f} |"
        )
    return "\n".join(lines)
