"""What sounds are compared by: one row of numbers a clip, from signal processing or from a network that is at hand.

The name of an embedding is part of every score that rests on it. None of them is VGGish, so no score is "FAD".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from riff.config import SpectrogramConfig
from riff.errors import RiffError
from riff.evaluate.pictures import mel_statistics
from riff.evaluate.sounds import Sound

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from riff.tagger import Tagger

LEVEL = -20.3  # decibels of full scale, RMS: what riff's models know; so a difference in level is none in sound
RATE = 22050
EVEN = 120.0  # bpm of the even grid that a sound of unknown tempo is drawn on: a column lasts 1/64 s
SHORTEST, LONGEST = 0.5, 120.0  # seconds; of a longer sound the middle is heard


@dataclasses.dataclass(frozen=True)
class Embedding:
    """A way to turn a sound into numbers.

    Attributes:
        name: as it stands in the names of scores.
        of: a sound to its features, (d,) float64.
    """

    name: str
    of: Callable[[Sound], np.ndarray]

    def rows(self, sounds: Iterable[Sound]) -> np.ndarray:
        """Features of sounds, (n, d).

        Raises:
            RiffError: a sound is shorter than half a second or silent; the message names it.
        """
        return np.stack([self.row(sound) for sound in sounds])

    def row(self, sound: Sound) -> np.ndarray:
        """Features of one sound, (d,); errors as in :meth:`rows`."""
        if sound.seconds < SHORTEST or float(sound.waveform.abs().max()) < 1e-4:
            raise RiffError(f"{sound.path}: {sound.seconds:.2f} s at this level cannot be embedded; use 0.5 s of sound")
        found = self.of(sound.middle(LONGEST))
        if not np.isfinite(found).all():
            raise RiffError(f"{sound.path}: its features ({self.name}) are not finite; leave it out")
        return found


def mel_embedding() -> Embedding:
    """96 statistics of riff-mini's mel picture: levels, spreads and modulation at 1, 2, 4 and 8 Hz, of 4 s windows."""
    config = SpectrogramConfig()

    def of(sound: Sound) -> np.ndarray:
        image = picture(sound, config)
        windows = _windows(image, config.width)
        found: np.ndarray = mel_statistics(windows, frames_per_beat=config.frames_per_beat).mean(0)
        return found

    return Embedding("mel statistics", of)


def descriptor_embedding() -> Embedding:
    """MFCC, chroma and tempogram of librosa, by mean and spread over time, each scaled to be of order 1."""
    return Embedding("MFCC, chroma and tempogram", _descriptors)


def latent_embedding(vae: AutoencoderKL, config: SpectrogramConfig, model: str) -> Embedding:
    """Mean and spread over time of a checkpoint's latents, in 8 bands of frequency; of 1 window or the mean of several.

    Args:
        vae: its autoencoder.
        config: its pictures.
        model: its name, for that of the embedding.
    """

    def of(sound: Sound) -> np.ndarray:
        from riff.latents import image_to_latents

        windows = _windows(picture(sound, config), config.width)
        latents = image_to_latents(windows, vae).cpu()
        bands = torch.nn.functional.adaptive_avg_pool2d(latents, (min(8, latents.shape[2]), latents.shape[3]))
        parts = [bands.mean(-1).flatten(1), bands.std(-1).flatten(1)]
        return np.asarray(torch.cat(parts, dim=1).mean(0), dtype=np.float64)

    return Embedding(f"latents of {model}", of)


def tagger_embedding(tagger: Tagger) -> Embedding:
    """What riff's tagger hears genre and instruments by, 2048 numbers.

    Every sound is laid alike, whatever its file says, lest two sets differ by what is known of them: at its measured
    tempo, or 120, with the start for a downbeat.
    """

    def of(sound: Sound) -> np.ndarray:
        from riff.evaluate.tempo import measure_tempo

        try:
            bpm = measure_tempo(sound.middle(30.0).waveform, sound.sample_rate)
        except RiffError:  # no onsets, or too short
            bpm = EVEN
        image = tagger.picture(sound.waveform, sound.sample_rate, bpm=bpm, downbeat=0.0)
        return np.asarray(tagger.embed(image[None])[0], dtype=np.float64)

    return Embedding("riff's tagger", of)


def picture(sound: Sound, config: SpectrogramConfig) -> Tensor:
    """The picture (1 or 2, M, N) of a sound, brought to one level, on an even grid of 120 bpm or the config's hop."""
    from riff.audio import resample
    from riff.image import mel_to_image
    from riff.spectrogram import waveform_to_mel

    mono = level(resample(sound.mono[None], sound.sample_rate, config.sample_rate))
    bpm = EVEN if config.grid == "beats" else None
    return mel_to_image(waveform_to_mel(mono.expand(config.channels, -1), config, bpm=bpm), config)


def level(waveform: Tensor) -> Tensor:
    """A sound (C, T) at the RMS level that riff's models know."""
    rms = float(waveform.double().square().mean().sqrt())
    return waveform * (10.0 ** (LEVEL / 20.0) / max(rms, 1e-9))


def _windows(image: Tensor, width: int) -> Tensor:
    """(n, C, M, width): whole windows, the last ending with the picture; a shorter picture repeats itself."""
    columns = image.shape[-1]
    if columns < width:
        return image.repeat(1, 1, math.ceil(width / columns))[None, ..., :width]
    starts = sorted({*range(0, columns - width + 1, width), columns - width})
    return torch.stack([image[..., start : start + width] for start in starts])


def _descriptors(sound: Sound) -> np.ndarray:
    import librosa

    from riff.audio import resample

    mono = level(resample(sound.mono[None], sound.sample_rate, RATE))[0].numpy()
    mono = np.pad(mono, (0, max(0, 8192 - mono.size)))
    power = np.abs(librosa.stft(mono, n_fft=2048, hop_length=512)) ** 2
    mel = librosa.feature.melspectrogram(S=power, sr=RATE, n_mels=64)
    loud = librosa.power_to_db(mel, top_db=80.0)
    mfcc = librosa.feature.mfcc(S=loud, n_mfcc=20)
    chroma = librosa.feature.chroma_stft(S=power, sr=RATE, tuning=0.0)
    strength = librosa.onset.onset_strength(S=loud, sr=RATE)
    frames = 384
    tempogram = librosa.feature.tempogram(onset_envelope=strength, sr=RATE, win_length=frames)
    lags = np.geomspace(6, frames - 1, 24).round().astype(int)  # 0.14 s to 8.9 s
    rows: list[Any] = [
        *(mfcc.mean(1) / 20.0, mfcc.std(1) / 20.0),
        *(2.0 * chroma.mean(1), 2.0 * chroma.std(1)),
        *(2.0 * tempogram.mean(1)[lags],),
    ]
    return np.concatenate(rows).astype(np.float64)
