"""What the autoencoder loses: image to latents to image to sound, beside the same image played as it is.

    python -m training.measure.autoencoder --vae runs/mini/autoencoder --data runs/data [--recordings FOLDER]
    [--clips 60]

Composed clips are the held-out images of ``--data``; recordings are excerpts of 8 beats at 120 bpm from the sound
files of a folder.
Modulation is the share of the envelope's movement between 20 and 60 Hz, of the sound between 2 and 6 kHz; the upper
edge is the
level of the highest fortieth of the band over the seventh of the band below it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
import torch
from torch import Tensor

from riff.audio.io import load_audio
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import image_to_mel, mel_to_image
from riff.spectrogram.inversion.waveform import mel_to_waveform
from riff.spectrogram.mel import waveform_to_mel
from riff.train.data.images import load_image_sets
from training.recipes.autoencoder import encode_mode

TARGETS = {
    "psnr_db": ">= 30",
    "modulation_20_60": "0.90..1.10",
    "onsets": "0.97..1.03",
    "percussive_db": "-0.5..0.5",
    "edge_db": "-1.5..1.5",
}


def figures_of(sound: np.ndarray, config: SpectrogramConfig) -> dict[str, float]:
    """Figures of one clip.

    Args:
        sound: (T,) float32.
        config: its sample rate and band.
    """
    import librosa

    rate = config.sample_rate
    band = scipy.signal.sosfiltfilt(
        scipy.signal.butter(4, (2000, 6000), "bandpass", fs=rate, output="sos"), sound.astype(np.float64)
    )
    envelope = np.abs(scipy.signal.hilbert(band))
    moves = np.abs(np.fft.rfft((envelope - envelope.mean()) * np.hanning(len(envelope))))
    hertz = np.fft.rfftfreq(len(envelope), 1 / rate)
    moving = moves[(hertz >= 20) & (hertz <= 60)].mean() / max(float(envelope.mean()), 1e-9)
    spectrum = np.abs(librosa.stft(sound, n_fft=2048))
    harmonic, percussive = librosa.decompose.hpss(spectrum)
    power = (spectrum**2).mean(1)
    bins = np.fft.rfftfreq(2048, 1 / rate)
    top = config.f_max

    def level(low: float, high: float) -> float:
        return 10 * float(np.log10(power[(bins >= low) & (bins < high)].mean() + 1e-12))

    return {
        "modulation_20_60": float(moving),
        "onsets": len(librosa.onset.onset_detect(y=sound, sr=rate)) / (len(sound) / rate),
        "percussive_db": 10 * float(np.log10((percussive**2).sum() / max((harmonic**2).sum(), 1e-12) + 1e-12)),
        "edge_db": level(top * 0.975, top) - level(top * 0.83, top * 0.975),
    }


def recorded_images(folder: Path, config: SpectrogramConfig, most: int) -> list[tuple[Tensor, float]]:
    """Images ``(C, M, N)`` of excerpts of the sound files below ``folder``, with their tempo of 120."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".ogg", ".wav", ".flac", ".mp3"})
    seconds = config.width / config.frames_per_beat * 0.5
    images = []
    for path in paths[:: max(1, len(paths) // most)][:most]:
        waveform, rate = load_audio(path)[:2]
        if rate != config.sample_rate or waveform.shape[-1] < 30 * rate:
            continue
        excerpt = waveform[..., 20 * rate : 20 * rate + round(seconds * rate)]
        excerpt = excerpt.expand(2, -1) if config.channels == 2 else excerpt.mean(0, keepdim=True)
        images.append((mel_to_image(waveform_to_mel(excerpt, config, bpm=120.0), config)[..., : config.width], 120.0))
    return images


@torch.inference_mode()
def measure(vae: Any, images: list[tuple[Tensor, float]], config: SpectrogramConfig) -> dict[str, float]:
    """Means over the clips: PSNR in dB, and each figure through the autoencoder relative to the image as it is."""
    rows, errors = [], []
    for image, bpm in images:
        rebuilt = (vae.decode(encode_mode(vae, image[None] * 2 - 1)).sample[0] / 2 + 0.5).clamp(0, 1)
        errors.append(float((rebuilt - image).square().mean()))
        plain, through = (
            mel_to_waveform(image_to_mel(each, config), config, bpm=bpm).mean(0).numpy() for each in (image, rebuilt)
        )
        one, two = figures_of(plain, config), figures_of(through, config)
        rows.append({name: (one[name], two[name]) for name in one})
    found = {"clips": float(len(images)), "psnr_db": -10 * float(np.log10(np.mean(errors)))}
    for name in rows[0]:
        before, after = np.mean([row[name] for row in rows], axis=0)
        found[name] = float(after - before if name.endswith("_db") else after / before)
    return found


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    from diffusers import AutoencoderTiny

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True, help="folder of an AutoencoderTiny")
    parser.add_argument("--data", type=Path, required=True, help="folder of training.recipes.dataset")
    parser.add_argument("--recordings", type=Path, help="folder of sound files")
    parser.add_argument("--clips", type=int, default=60, help="of each kind")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args(argv)
    vae = AutoencoderTiny.from_pretrained(arguments.vae, use_safetensors=True).float().eval()
    sets, config = load_image_sets(arguments.data / "heldout", limit=arguments.clips)
    composed = [(sets[0].images(torch.tensor([i]))[0], float(sets[0].clips[i]["bpm"])) for i in range(len(sets[0]))]
    found = {"composed": measure(vae, composed, config)}
    if arguments.recordings:
        found["recorded"] = measure(vae, recorded_images(arguments.recordings, config, arguments.clips), config)
    print("| figure | target |", " | ".join(found), "|\n|---|---|" + "---|" * len(found))
    for name in found["composed"]:
        values = " | ".join(f"{each[name]:.2f}" for each in found.values())
        print(f"| {name} | {TARGETS.get(name, '')} | {values} |")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
