"""A plain tune to measure with, so that no recording is needed: chords, a bass and a drum on every beat."""

import math

import torch
from torch import Tensor

BPM = 120.0
_CHORDS = ((57, 60, 64), (53, 57, 60), (48, 55, 64), (55, 59, 62))  # Am F C G, MIDI notes


def tune(seconds: float, sample_rate: int, *, seed: int = 0) -> Tensor:
    """The tune (1, T) in [-1, 1] at 120 bpm; another ``seed`` plays it in another key and order.

    Args:
        seconds: length.
        sample_rate: samples per second.
        seed: of key, order of the chords and noise of the drum.
    """
    generator = torch.Generator().manual_seed(seed)
    shift = int(torch.randint(12, (), generator=generator))
    order = torch.randperm(len(_CHORDS), generator=generator).tolist()
    size, beat = round(seconds * sample_rate), 60.0 / BPM
    sound = torch.zeros(size)
    for number in range(math.ceil(seconds / beat)):
        start = round(number * beat * sample_rate)
        length = min(round(2.0 * beat * sample_rate), size - start)
        time = torch.arange(length) / sample_rate
        chord = _CHORDS[order[number // 4 % len(order)]]
        notes = [*(note + shift for note in chord), chord[number % 3] + shift - 24]
        part = torch.stack([_note(note, time) for note in notes]).sum(0) * 0.12
        drum = torch.randn(length, generator=generator) * torch.exp(-time * 60.0)
        sound[start : start + length] += part + 0.25 * drum
    return (sound / sound.abs().max().clamp_min(1e-9) * 0.8)[None]


def _note(note: int, time: Tensor) -> Tensor:
    """A decaying tone of six partials."""
    frequency = 440.0 * 2.0 ** ((note - 69) / 12.0)
    partials = [torch.sin(2.0 * math.pi * frequency * k * time) / k for k in range(1, 7)]
    return torch.stack(partials).sum(0) * torch.exp(-time * 3.0)
