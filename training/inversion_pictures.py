"""The pictures of docs/sound-from-pictures.md: what goes in, what comes out, and where the phase errs.

In the pictures of phase, brightness is loudness and colour is the error of the phase, red where it is right and cyan
where it is opposite. A note of one colour is right but for a constant, which cannot be heard.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from riff.image import image_to_mel, mel_to_image
from riff.spectrogram import mel_to_waveform, waveform_to_mel
from training.measure_inversion import CONFIG, riffusions_algorithm

SPAN = slice(60, 316)  # columns that are shown: 2.56 s
TOP = 256  # rows of 10 Hz that are shown of the phase: to 2.5 kHz


def draw_pictures(clip: Tensor, folder: Path) -> None:
    """Write ``rebuilt.png`` and ``phase.png`` for a clip (T,)."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = (mel_to_image(waveform_to_mel(clip[None], CONFIG), CONFIG) * 255.0).round() / 255.0
    asked = image_to_mel(picture, CONFIG)
    peak = float(waveform_to_mel(clip[None], CONFIG).max())
    sounds = {
        "first phase alone": mel_to_waveform(asked, CONFIG, n_iter=0),
        "riff, default": mel_to_waveform(asked, CONFIG),
        "Riffusion's algorithm": riffusions_algorithm(CONFIG, CONFIG.hop_length)(asked),
    }
    panels = {"asked": _grey(picture[0])}
    for name in ("riff, default", "Riffusion's algorithm"):
        mel = waveform_to_mel(sounds[name][:, : len(clip)], CONFIG)
        gain = (mel * asked[..., : mel.shape[-1]]).sum() / mel.square().sum()
        again = mel_to_image(mel * gain / asked.max() * peak, CONFIG)[0]
        panels[name] = _grey(again)
        panels[f"{name}: error x 4"] = _grey(1.0 - 4.0 * (again - picture[0]).abs())
    _save(panels, folder / "rebuilt.png")
    true = _frames(clip)
    _save(
        {name: _phase_error(_frames(sound[0, : len(clip)]), true) for name, sound in sounds.items()},
        folder / "phase.png",
    )


def _frames(sound: Tensor) -> Tensor:
    """(F, N) complex, in windows of the config."""
    size, hop = CONFIG.win_length, CONFIG.hop_length
    return torch.stft(sound, size, hop, window=torch.hann_window(size), return_complex=True)[:TOP, SPAN]


def _grey(picture: Tensor) -> np.ndarray:
    values = (picture[:, SPAN].clamp(0.0, 1.0) * 255.0).round().byte().numpy()
    return np.repeat(values[::2, :, None], 3, axis=2)


def _phase_error(found: Tensor, true: Tensor) -> np.ndarray:
    """Hue is the error of the phase, value the loudness within 50 dB."""
    loudness = (20.0 * (true.abs() / true.abs().max()).clamp(min=1e-9).log10() / 50.0 + 1.0).clamp(0.0, 1.0)
    hue = (found * true.conj()).angle().remainder(2.0 * torch.pi) / (2.0 * torch.pi)
    hsv = torch.stack([hue, torch.full_like(hue, 0.8), loudness], 2).flip(0)
    return np.asarray(Image.fromarray((hsv * 255.0).byte().numpy(), "HSV").convert("RGB"))


def _save(panels: dict[str, np.ndarray], path: Path) -> None:
    """Panels side by side, each under its name."""
    height, width = next(iter(panels.values())).shape[:2]
    sheet = Image.new("RGB", ((width + 8) * len(panels) - 8, height + 16), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (name, pixels) in enumerate(panels.items()):
        draw.text((place * (width + 8), 2), name, fill="black")
        sheet.paste(Image.fromarray(pixels), (place * (width + 8), 16))
    sheet.quantize(128).save(path, optimize=True)
