"""Which two channels of a stereo recording are drawn side by side: left and right, or mid and side.

    python -m training.measure_canvas stereo --count 6

Composed stereo pieces are remixed as mid and side, which is what riff does, and left and right each by itself, from the
same noise: how the channels hang together, how wide they are, and what their sum sounds like, against the piece's own
and against the same piece remixed in mono.
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from riff.loudness import loudness
from riff.pipeline import RiffPipeline
from training.composer import compose
from training.composer.genre_words import NAMES
from training.composer.render import SAMPLE_RATE, render

STRENGTHS = (0.0, 0.3, 0.6)


def width_figures(sound: Tensor, piece: Tensor, mono: Tensor) -> dict[str, float]:
    """What became of the channels of a piece (2, T), and of their sum, whose remix from mono is ``mono`` (1, T).

    Correlation and side level are distances from the piece's own; the sum's spectrum is compared in 64 mel bands,
    averaged over time, with each at one level.
    """
    bands = [_spectrum(x) for x in (sound.mean(0), mono[0])]
    return {
        "correlation": abs(_correlation(sound) - _correlation(piece)),
        "side level dB": abs(_side_level(sound) - _side_level(piece)),
        "level of the sum LU": abs(
            loudness(sound.mean(0, keepdim=True), SAMPLE_RATE) - loudness(piece.mean(0, keepdim=True), SAMPLE_RATE)
        ),
        "sum against mono dB": float((bands[0] - bands[1]).abs().mean()),
    }


def _correlation(sound: Tensor) -> float:
    return float(torch.corrcoef(sound)[0, 1])


def _side_level(sound: Tensor) -> float:
    """Decibels of half the difference of two channels over half their sum."""
    middle, side = sound.sum(0), sound[0] - sound[1]
    return 10.0 * math.log10(float(side.square().mean() / middle.square().mean()) + 1e-9)


def _spectrum(sound: Tensor) -> Tensor:
    """(64,) decibels of the mean magnitude in bands of equal width in octaves, around their mean."""
    magnitude = torch.stft(sound, 4096, 1024, window=torch.hann_window(4096), return_complex=True).abs().mean(1)
    edges = torch.logspace(math.log10(8), math.log10(1400), 65).round().long()
    bands = torch.stack([magnitude[a : max(b, a + 1)].mean() for a, b in itertools.pairwise(edges)])
    decibels = 20.0 * (bands + 1e-4).log10()
    return decibels - decibels.mean()


def measure_stereo(pipe: RiffPipeline, genres: Sequence[str], first_seed: int) -> str:
    """The table of a composed piece of each genre, remixed in two ways at some strengths."""
    found: dict[tuple[float, str], list[dict[str, float]]] = {}
    for number, genre in enumerate(genres):
        score = compose(first_seed + number, genre=genre, windows=1)
        piece = torch.from_numpy(render(score))[:, : round(score.beats * 60.0 / score.bpm * SAMPLE_RATE)]
        for strength in STRENGTHS:
            remixed = functools.partial(_remixed, pipe, NAMES[genre][1], score.bpm, number, strength)
            mono = remixed(piece.mean(0, keepdim=True))
            each = torch.cat([remixed(channel[None]) for channel in piece])
            ways = {"left and right": each, "mid and side": remixed(piece)}
            for way, sound in ways.items():
                found.setdefault((strength, way), []).append(width_figures(sound, piece, mono))
                print(f"{genre} {strength} {way}: {found[strength, way][-1]}", file=sys.stderr, flush=True)
    heads = list(next(iter(found.values()))[0])
    lines = ["| strength | way | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    for (strength, way), rows in found.items():
        cells = [f"{statistics.mean(row[head] for row in rows):.2f}" for head in heads]
        lines.append(f"| {strength:g} | {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _remixed(pipe: RiffPipeline, prompt: str, bpm: float, seed: int, strength: float, sound: Tensor) -> Tensor:
    return pipe.remix(
        sound, prompt, strength=strength, sampling_rate=SAMPLE_RATE, bpm=bpm, downbeat=0.0, seed=seed
    ).waveform
