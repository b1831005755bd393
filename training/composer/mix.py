"""The mixing desk: each part at its level and in its place, with what its kind asks for; then the room and the master.

A style is how the records of a genre sound, in a row of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.composer import effects
from training.composer.effects import SAMPLE_RATE, Sound
from training.composer.tables import table

if TYPE_CHECKING:
    from training.composer.score import Part, Score


@dataclass(frozen=True)
class Style:
    """How a genre is mixed.

    Attributes:
        room: reverberation time in seconds; ``bright`` 0 to 1; ``wet`` scales every part's share of it.
        echo: level of echoes on leads and arpeggios, each ``echo_beats`` after the one before.
        pump: how far all but the drums duck under a kick, 0 to 1.
        glue: threshold of the bus compressor, in decibels above the mean level (lower is tighter).
        drive: saturation of the bus, 0 none.
        width: scales the stereo field.
        tilt: decibels above 5 kHz.
        wear: of tape and vinyl, 0 none. ``bits``: of an old sampler, 0 none. ``top``: highest frequency, 0 for all.
        lufs: loudness of the master.
        drums: decibels by which the drums stand out.
    """

    room: float = 1.2
    bright: float = 0.5
    wet: float = 1.0
    echo: float = 0.0
    echo_beats: float = 0.75
    pump: float = 0.0
    glue: float = 3.0
    drive: float = 0.0
    width: float = 1.25
    tilt: float = 1.0
    wear: float = 0.0
    bits: int = 0
    top: float = 0.0
    lufs: float = -14.0
    drums: float = 0.0


_TABLE = table("mixes")
STYLES: dict[str, Style] = {name: Style(**fields) for name, fields in _TABLE["styles"].items()}


def mix(score: Score, stems: list[tuple[Sound, Sound | None]], *, first: int, offset: float = 0.0) -> Sound:
    """Mix parts to a record.

    Args:
        score: whose parts these are; its ``mix`` names a style.
        stems: per part its dry sound (2, T) and the kick apart, or None.
        first: sample from which on loudness counts: what is before it only fills the room.
        offset: decibels added to the style's loudness, for a quiet section.

    Returns:
        (2, T - first) float32 at the style's loudness, no sample above 0.9.
    """
    style = STYLES[score.mix]
    rng = np.random.default_rng((abs(score.seed), 77))
    length = stems[0][0].shape[-1]
    dry, send, echo, drums = (np.zeros((2, length), np.float32) for _ in range(4))
    for part, (sound, kick) in zip(score.parts, stems, strict=True):
        seed = int(rng.integers(1 << 30))
        if part.is_drum:
            played, wet = _drums(part, sound, kick, style)
            drums += played
            send += wet
            continue
        treated = _treated(part, sound, style, seed)
        dry += treated
        send += treated * np.float32(0.55 * (part.reverb + 0.08) * (0.15 if part.role == "bass" else 1.0))
        if style.echo and part.role in ("lead", "arp", "counter", "comp"):
            echo += treated * np.float32(style.echo * (0.4 if part.role == "comp" else 1.0))
    if style.echo:
        returned = effects.echoed(echo, seconds=style.echo_beats * 60.0 / score.bpm, feedback=0.45)
        dry += returned
        send += 0.3 * returned
    # A few rooms of each kind: seeded by the piece, but few enough to be kept.
    shape = float(rng.choice((0.85, 1.0, 1.2)))
    walls = effects.room(
        round(style.room * shape, 3), style.bright, 0.012 if style.room < 1 else 0.025, int(rng.integers(2))
    )
    wet = effects.highpass(effects.reverberated(send, walls), 160) * np.float32(0.8 * style.wet)
    rest = dry + wet
    if style.pump:
        rest = rest * effects.pumped(length, _kicks(score), depth=style.pump, seconds=min(0.4, 0.85 * 60.0 / score.bpm))
    return _master(rest + drums, style, rng, first=first, offset=offset)


def _level(sound: Sound) -> float:
    """Loudness of what sounds: root mean square of 50 ms blocks within 20 dB of the loudest, lows weighed less."""
    mono = effects.highpass(sound.mean(0), 90, 1)
    blocks = mono[: len(mono) // 2205 * 2205].reshape(-1, 2205)
    power = (blocks.astype(np.float64) ** 2).mean(1) if len(blocks) else np.zeros(1)
    loud = power[power > 0.01 * power.max()]
    return float(np.sqrt(loud.mean())) if len(loud) and power.max() > 1e-12 else 0.0


def _gain(part: Part, level: float) -> np.float32:
    decibels = _TABLE["levels"].get(part.role, -5.0) + float(
        np.clip(12 * np.log10(max(part.volume, 0.05) / 0.75), -5, 2)
    )
    return np.float32(0.1 * 10 ** (decibels / 20) / level if level > 1e-7 else 0.0)


def _treated(part: Part, sound: Sound, style: Style, seed: int) -> Sound:
    """One part as it leaves its channel of the desk."""
    if part.instrument in _TABLE["amplifiers"]:
        drive, tone = _TABLE["amplifiers"][part.instrument]
        drive *= 0.35 if part.role in ("lead", "counter") and drive > 4 else 1.0
        sound = effects.amplified(sound, drive=drive, tone=tone, seed=seed)
    sound = effects.highpass(sound, _TABLE["lowest"].get(part.role, 100.0))
    name = part.voice or part.instrument
    if name in _TABLE["chorus"]:
        sound = effects.chorus(sound, depth=2.5, mix=_TABLE["chorus"][name], phase=seed % 97 / 97)
    if name in _TABLE["tremolo"]:
        rate, depth = _TABLE["tremolo"][name]
        sound = effects.tremolo(sound, rate=rate, depth=depth, phase=seed % 89 / 89)
    if part.role == "bass":
        if not part.voice:  # a recorded bass has less below 80 Hz than records have
            sound = effects.peak(sound, 62, 2.5, 0.8)
        sound = effects.compressed(effects.widened(sound, 0.35), threshold=0.0, ratio=3.0)
    else:
        if style.width > 0.5:
            sound = effects.spread(sound, _TABLE["spread"].get(part.role, 0.25) * style.width * 0.8, seed)
        sound = effects.panned(sound, part.pan * min(1.0, style.width))
    return np.asarray(sound * _gain(part, _level(sound)), np.float32)


def _drums(part: Part, sound: Sound, kick: Sound | None, style: Style) -> tuple[Sound, Sound]:
    """The drums and what they send to the room."""
    # Beside records the soundfonts' cymbals are bright and their kicks small; a machine's kick is large.
    recorded = effects.peak(effects.shelf(sound, 6000, -3.0), 65, 3.0)
    whole = recorded if kick is None else sound + np.float32(0.5) * kick
    level = 10 ** (style.drums / 20) * _gain(part, _level(whole))
    squeezed = effects.compressed(whole, threshold=6.0, ratio=3.0, attack=0.008, release=0.12) * level
    played = effects.widened(squeezed, 1.3)
    return played, effects.highpass(sound, 250) * np.float32(level * 0.45 * (part.reverb + 0.05))


def _kicks(score: Score) -> list[int]:
    beat = 60.0 * SAMPLE_RATE / score.bpm
    drums = [part for part in score.parts if part.is_drum]
    return [round(note.start * beat) for part in drums for note in part.notes if note.pitch in (35, 36)]


def _placed(sound: Sound, width: float) -> Sound:
    """The stereo field scaled by ``width``, but between 13 and 4 dB below the middle, where records lie."""
    mid, side = float((sound.mean(0) ** 2).mean()), float(((sound[0] - sound[1]) ** 2).mean()) / 4
    if width < 0.5 or mid < 1e-12:
        return effects.widened(sound, width)
    ratio = float(np.sqrt(side / mid)) + 1e-6
    return effects.widened(sound, min(max(width * ratio, 0.22), 0.63) / ratio if ratio > 0.02 else width)


def _master(sound: Sound, style: Style, rng: np.random.Generator, *, first: int, offset: float) -> Sound:
    if style.drive:
        sound = effects.driven(sound, style.drive)
    sound = effects.compressed(sound, threshold=style.glue, ratio=2.5, attack=0.02, release=0.2)
    sound = effects.shelf(sound, 5000, style.tilt)
    if style.bits:
        sound = effects.crushed(sound, bits=style.bits, hold=1 if style.bits > 8 else 2)
    if style.wear:
        sound = effects.taped(sound, rng, wear=style.wear)
    if style.top:
        sound = effects.lowpass(sound, style.top, 3)
    sound = effects.highpass(_placed(sound, style.width), 24)
    return effects.mastered(np.ascontiguousarray(sound[:, first:]), style.lufs + offset)
