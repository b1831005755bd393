"""Our own seed pictures and masks, under the names that Riffusion's web app asks for.

The pictures are two bars of simple music, composed here note by note and drawn as the model's pictures are. They are
computed round the end of the loop, so they close to the sample; the same call gives the same picture.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from riff.codec import SpectrogramCodec
from riff.config import SpectrogramConfig

BEATS = 8
BPM = 93.75  # at which eight beats fill Riffusion's 512 columns of 10 ms
_LEVEL_DB = -20.3  # root mean square that riff's own models were trained at
Voice = Callable[[np.ndarray, float], np.ndarray]


def _kick(t: np.ndarray, pitch: float) -> np.ndarray:
    phase = 2 * np.pi * (45.0 * t + 90.0 * 0.03 * (1 - np.exp(-t / 0.03)))
    return np.asarray(np.sin(phase) * np.exp(-t / 0.12))


def _noise(t: np.ndarray) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(len(t))


def _snare(t: np.ndarray, pitch: float) -> np.ndarray:
    return np.asarray(0.4 * _noise(t) * np.exp(-t / 0.07) + 0.5 * np.sin(2 * np.pi * 185 * t) * np.exp(-t / 0.05))


def _hat(t: np.ndarray, pitch: float) -> np.ndarray:
    return np.asarray(0.15 * np.diff(_noise(t), prepend=0.0) * np.exp(-t / 0.025))


def _tone(partials: tuple[tuple[float, float, float], ...]) -> Voice:
    """A struck note of partials (ratio, strength, decay in seconds)."""

    def play(t: np.ndarray, pitch: float) -> np.ndarray:
        parts = [
            strength * np.sin(2 * np.pi * ratio * pitch * t) * np.exp(-t / decay) for ratio, strength, decay in partials
        ]
        return np.asarray(sum(parts) * np.minimum(1.0, t / 0.003))

    return play


_pluck = _tone(tuple((float(n), 0.4 / n, 0.18 / n**0.5) for n in range(1, 9)))
_marimba = _tone(((1.0, 0.5, 0.25), (3.98, 0.2, 0.06), (9.2, 0.08, 0.03)))
_vibes = _tone(((1.0, 0.4, 1.2), (4.0, 0.12, 0.5), (10.0, 0.03, 0.1)))
_bass = _tone(tuple((float(n), 0.5 / n, 0.3) for n in range(1, 13)))

# (sixteenth, voice, MIDI pitch)
Score = list[tuple[int, Voice, int]]


def _hits(places: range | tuple[int, ...], voice: Voice, pitch: int = 60) -> Score:
    return [(place, voice, pitch) for place in places]


def _line(pitches: tuple[int | None, ...], voice: Voice, step: int = 1) -> Score:
    return [(place * step, voice, pitch) for place, pitch in enumerate(pitches) if pitch is not None]


_RUN = (57, 60, 64, 69, 72, 69, 64, 60, 55, 60, 64, 67, 72, 67, 64, 60)
_FALL = (53, 57, 60, 65, 69, 65, 60, 57, 55, 59, 62, 67, 71, 67, 62, 59)
_CHORDS = ((0, (57, 60, 64, 67)), (6, (60, 64)), (8, (53, 57, 60, 64)), (16, (50, 57, 60, 65)), (24, (55, 59, 62, 65)))
SCORES: dict[str, Score] = {
    "og_beat": [
        *_hits((0, 8, 10, 16, 24, 26, 29), _kick),
        *_hits((4, 12, 20, 28), _snare),
        *_hits(range(0, 32, 2), _hat),
    ],
    "agile": [*_line(_RUN + _FALL, _pluck), *_hits((0, 8, 16, 24), _kick), *_hits(range(2, 32, 4), _hat)],
    "marim": [
        *_line((60, None, 67, 72, None, 67, 64, None, 65, None, 69, 72, None, 69, 67, 64) * 2, _marimba),
        *_hits((0, 16), _kick),
    ],
    "motorway": [
        *_line((40, 40, 40, 40, 43, 43, 40, 40, 36, 36, 36, 36, 38, 38, 38, 43), _bass, 2),
        *_hits(range(0, 32, 4), _kick),
        *_hits(range(2, 32, 4), _hat),
        *_hits((4, 12, 20, 28), _snare),
    ],
    "vibes": [
        *((place, _vibes, pitch) for place, pitches in _CHORDS for pitch in pitches),
        *_line((76, None, 74, 72, None, 69, 72, None), _vibes, 4),
    ],
}


def seed_sound(name: str, samples: int, sample_rate: int) -> Tensor:
    """(T,) of one seed: eight beats in ``samples`` samples, whose last notes ring on in the first beats."""
    sound = np.zeros(samples)
    for place, voice, pitch in SCORES[name]:
        t = np.arange(min(samples, 2 * sample_rate)) / sample_rate
        note = voice(t, 440.0 * 2.0 ** ((pitch - 69) / 12))
        start = round(place * samples / (4 * BEATS))
        np.add.at(sound, (start + np.arange(len(note))) % samples, note)
    loudness = math.sqrt(float(np.mean(sound**2)))
    sound *= min(10 ** (_LEVEL_DB / 20) / loudness, 0.97 / float(np.abs(sound).max()))
    return torch.from_numpy(sound.astype(np.float32))


def seed_tempo(config: SpectrogramConfig) -> float:
    """Beats per minute at which a seed fills a training picture."""
    if config.grid == "beats":
        return BPM
    return BEATS * 60.0 * config.sample_rate / (config.width * config.hop_length)


def seed_picture(name: str, config: SpectrogramConfig) -> Tensor:
    """``(C, M, N)`` in [0, 1]: one of :data:`SCORES` as a picture of ``config``'s kind, N its training width."""
    bpm = seed_tempo(config)
    samples = config.frames_to_samples(config.width, bpm=bpm)
    sound = seed_sound(name, samples, config.sample_rate)
    thrice = sound.repeat(config.channels, 3)
    image = SpectrogramCodec(config).encode(thrice, bpm=bpm if config.grid == "beats" else None).image
    return image[..., config.width : 2 * config.width].clone()


def seed_mask(name: str, config: SpectrogramConfig) -> Tensor:
    """``(M, N)``: 1 is drawn anew, 0 stays. Soft, as the web app's are, which keep up to a third of the top."""
    rows = torch.linspace(0.0, 1.0, config.n_mels)[:, None].expand(-1, config.width)  # 0 is the top
    return 1.0 - MASKS[name](rows)


def _beat_lines(rows: Tensor) -> Tensor:
    place = torch.arange(rows.shape[1]) * BEATS / rows.shape[1]
    return (0.2 * ((place + 0.125) % 1.0 < 0.25).float()).expand_as(rows)


# How much is kept, by a name that says what the picture of it shows.
MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "mask_beat_lines_80": _beat_lines,
    "mask_gradient_dark": lambda rows: 0.87 * (1.0 - rows),
    "mask_gradient_top_70": lambda rows: 0.3 * (1.0 - rows),
    "mask_gradient_top_fifth_75": lambda rows: 0.25 * (1.0 - 5.0 * rows).clamp(min=0.0),
    "mask_top_third_75": lambda rows: 0.25 * (rows < 1 / 3).float(),
    "mask_top_third_95": lambda rows: 0.05 * (rows < 1 / 3).float(),
}
