"""Drum machines in numpy (after the 808, the 909 and a gated kit of the eighties), and recorded kits.

The recorded one-shots are Sonic Pi's (CC0; Debian package ``sonic-pi-samples``). A kit names a sound for some of the
drum notes of General MIDI; what it does not name is left to the soundfont.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

from training.composer.effects import SAMPLE_RATE, Sound, panned
from training.composer.tables import table

RECORDED = Path("/usr/share/sonic-pi/samples")
Wave = NDArray[np.float32]

SOUNDS: dict[str, tuple[str, tuple[float, ...]]] = {
    name: (row[0], tuple(row[1:])) for name, row in table("kits")["sounds"].items()
}


def _kits() -> dict[str, dict[int, str]]:
    kits: dict[str, dict[int, str]] = {}
    for name, row in table("kits")["kits"].items():
        own = {int(note): sound for note, sound in row.items() if note != "base"}
        kits[name] = (kits[row["base"]] if "base" in row else {}) | own
    return kits


KITS = _kits()
_PANS = {int(note): pan for note, pan in table("kits")["pans"].items()}


def _noise(name: str, length: int, low: float) -> NDArray[np.float64]:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return np.asarray(sosfilt(butter(2, low, "highpass", fs=SAMPLE_RATE, output="sos"), rng.standard_normal(length)))


def _metal(length: int, low: float) -> NDArray[np.float64]:
    """Six squares that do not fit, as in the 808."""
    time = np.arange(length) / SAMPLE_RATE
    squares = sum(
        np.sign(np.sin(2 * np.pi * hertz * 3.1 * time)) for hertz in (205.3, 304.4, 369.6, 522.7, 540.0, 800.0)
    )
    return np.asarray(sosfilt(butter(3, low, "highpass", fs=SAMPLE_RATE, output="sos"), squares)) * 0.5


@lru_cache(maxsize=256)
def one_shot(name: str) -> Wave:
    """The sound of one stroke, shape (T,), loudest sample 1."""
    if name not in SOUNDS:
        return _recorded(name)
    kind, numbers = SOUNDS[name]
    first = (
        numbers[3]
        if kind == "kick"
        else numbers[0]
        if kind in ("clap", "hat", "cymbal")
        else numbers[1]
        if kind == "tone"
        else max(numbers[1:3])
    )
    length = round(min(3.0, 7 * first + 0.05) * SAMPLE_RATE)
    time = np.arange(length) / SAMPLE_RATE
    if kind == "kick":
        end, octaves, speed, decay, click, drive = numbers
        wave = np.sin(2 * np.pi * np.cumsum(end * 2 ** (octaves * np.exp(-time / speed))) / SAMPLE_RATE)
        wave = np.tanh(drive * wave * np.exp(-time / decay)) / np.tanh(drive) + click * 0.4 * _noise(
            name, length, 2500
        ) * np.exp(-time / 0.003)
    elif kind == "snare":
        skin, skin_decay, wires, share, low = numbers
        tone = np.sin(2 * np.pi * skin * time) + 0.6 * np.sin(2 * np.pi * 1.78 * skin * time)
        wave = (1 - share) * tone * np.exp(-time / skin_decay) + share * _noise(name, length, low) * np.exp(
            -time / wires
        )
        if "gated" in name:
            wave *= 1 / (1 + np.exp((time - 0.24) / 0.008))
    elif kind == "clap":
        tail, middle = numbers
        band = sosfilt(
            butter(1, (0.6 * middle, 1.8 * middle), "bandpass", fs=SAMPLE_RATE, output="sos"), _noise(name, length, 400)
        )
        hands = sum(np.where(time >= at, np.exp(-(time - at) / 0.006), 0) for at in (0.0, 0.011, 0.021))
        wave = band * (hands + np.where(time >= 0.03, np.exp(-(time - 0.03) / tail), 0))
    elif kind in ("hat", "cymbal"):
        decay, low = numbers[0], numbers[1]
        metal = numbers[2] if kind == "hat" else 0.35
        wave = (metal * _metal(length, low) + (1 - metal) * _noise(name, length, low)) * np.exp(-time / decay)
        wave *= np.minimum(1, time / 0.0008)
    else:
        hertz, decay, drop, second = numbers
        phase = 2 * np.pi * np.cumsum(hertz * 2 ** (drop * np.exp(-time / 0.04))) / SAMPLE_RATE
        wave = (np.sin(phase) + second * np.sign(np.sin(1.48 * phase))) * np.exp(-time / decay)
        wave *= np.minimum(1, time / 0.0006)
    if kind != "kick":  # converters of those years end near 15 kHz
        wave = sosfilt(butter(2, 12500, fs=SAMPLE_RATE, output="sos"), wave)
    return (wave / np.abs(wave).max()).astype(np.float32)


def _recorded(name: str) -> Wave:
    import soundfile

    wave, rate = soundfile.read(RECORDED / f"{name}.flac", dtype="float32", always_2d=True)
    assert rate == SAMPLE_RATE
    mono = wave.mean(1)[: 2 * SAMPLE_RATE]
    return np.asarray(mono / (np.abs(mono).max() + 1e-9), np.float32)


def available(kit: str) -> bool:
    """Whether this machine has all sounds of a kit: the recorded ones come in a package of their own."""
    return all(name in SOUNDS or (RECORDED / f"{name}.flac").is_file() for name in KITS[kit].values())


_LEVELS = {int(note): level for note, level in table("kits")["levels"].items()}


def play_machine(kit: str, notes: list[tuple[int, int, int, int]], *, length: int) -> tuple[Sound, Sound]:
    """Play a kit's notes.

    Args:
        kit: one of ``KITS``.
        notes: (first sample, samples held, drum note, velocity), in order of time; notes the kit lacks are left out.
        length: T.

    Returns:
        The kicks and the rest, each (2, T).
    """
    out = np.zeros((2, 2, length), np.float32)
    sounds = KITS[kit]
    for number, (start, _, pitch, velocity) in enumerate(notes):
        if pitch not in sounds or start >= length:
            continue
        wave = one_shot(sounds[pitch])[: length - start]
        if pitch == 46:  # the next closed hat stops an open one
            closed = next((s for s, _, p, _ in notes[number + 1 :] if p in (42, 44, 46)), length)
            wave = wave[: max(64, closed - start)]
        stroke = wave * np.float32(0.4 * _LEVELS.get(pitch, 0.45) * (velocity / 100) ** 1.4)
        sides = panned(np.stack([stroke, stroke]), _PANS[pitch]) if pitch in _PANS else np.stack([stroke, stroke])
        out[0 if pitch == 36 else 1, :, start : start + len(stroke)] += sides
    return out[0], out[1]
