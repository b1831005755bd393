"""Synthesizer voices that General MIDI has not, in numpy and numba: supersaw, wobble, 808, FM bells, acid line and kin.

Two engines. The *subtractive* one: a few detuned oscillators without aliases (Välimäki and Huovilainen, 2007), a filter
that moves (Simper's state-variable filter, 2013), an envelope. The *FM* one: one sine bends another (Chowning, 1973),
with a falling pitch where a drum-like attack is wanted. A voice is a row of numbers for one of them.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from training.composer.effects import SAMPLE_RATE, Sound
from training.composer.tables import table


@dataclass(frozen=True)
class Subtractive:
    """Oscillators through a moving filter; times in seconds.

    Attributes:
        shape: 0 saw, 1 pulse, 2 triangle.
        voices: oscillators of a note, spread over ``detune`` semitones and over the stereo field by ``width`` (0..1).
        pulse: share of a period a pulse is high.
        sub: level of a sine an octave below.
        cutoff: of the low-pass when the envelope is down, in Hz; ``follow`` (0..1) makes it rise with the note.
        sweep: octaves the envelope opens it by; it falls back over ``fall``.
        resonance: 0 none to 0.97 nearly singing.
        lfo: octaves that a wobble adds, ``rate`` times a beat (0: none; negative: cycles a second).
        drive: saturation after the filter, 0 none.
        attack, release: of the loudness; ``sustain`` is where it settles over ``decay``.
        glide: time constant with which a note slides from the one before, where they touch.
    """

    shape: int = 0
    voices: int = 1
    detune: float = 0.0
    width: float = 0.0
    pulse: float = 0.5
    sub: float = 0.0
    cutoff: float = 8000.0
    follow: float = 0.3
    sweep: float = 0.0
    fall: float = 0.3
    resonance: float = 0.1
    lfo: float = 0.0
    rate: float = 0.0
    drive: float = 0.0
    attack: float = 0.005
    decay: float = 0.4
    sustain: float = 1.0
    release: float = 0.08
    glide: float = 0.0
    vibrato: float = 0.0


@dataclass(frozen=True)
class Fm:
    """A sine bent by another of ``ratio`` times its frequency.

    Attributes:
        ratio: frequency of the bending sine over the note's.
        index: how far it bends at first, in radians; it falls to ``floor`` of that over ``fall`` seconds.
        drop: octaves above its note where the pitch begins, ``drop_time`` its time constant.
        attack, decay, sustain, release, glide, drive, vibrato: as in ``Subtractive``.
    """

    ratio: float = 1.0
    index: float = 0.0
    floor: float = 0.0
    fall: float = 0.3
    drop: float = 0.0
    drop_time: float = 0.03
    attack: float = 0.002
    decay: float = 1.0
    sustain: float = 0.0
    release: float = 0.15
    drive: float = 0.0
    glide: float = 0.0
    vibrato: float = 0.0


VOICES: dict[str, Subtractive | Fm] = {
    **{name: Subtractive(**fields) for name, fields in table("voices")["subtractive"].items()},
    **{name: Fm(**fields) for name, fields in table("voices")["fm"].items()},
}


@njit(cache=True, fastmath=True)  # type: ignore[misc, unused-ignore]
def _subtract(
    out: NDArray[np.float32],
    start: int,
    hold: int,
    pitches: NDArray[np.float64],
    level: float,
    phases: NDArray[np.float64],
    p: NDArray[np.float64],
) -> None:
    """Add one note to ``out`` (2, T). ``pitches``: from and to, in MIDI numbers; ``p``: see ``_row``."""
    shape, n_osc, detune, width, pulse, sub = int(p[0]), int(p[1]), p[2], p[3], p[4], p[5]
    cutoff, follow, sweep, fall, resonance = p[6], p[7], p[8], p[9], p[10]
    lfo, lfo_hz, drive, attack, decay, sustain = p[11], p[12], p[13], p[14], p[15], p[16]
    release, glide, vibrato = p[17], p[18], p[19]
    rate = 44100.0
    stop = min(out.shape[1], start + hold + int(4 * release * rate))
    base_cut = cutoff * (440.0 * 2.0 ** ((pitches[1] - 69.0) / 12.0) / 261.63) ** follow
    ic1, ic2 = np.zeros(2), np.zeros(2)
    sub_phase, loud_at_end = 0.0, 0.0
    g, k, a1 = 0.0, 2.0 - 2.0 * resonance, 0.0
    gain = level / np.sqrt(n_osc)
    steps = np.zeros(n_osc)
    sides = np.zeros(n_osc)
    for i in range(n_osc):
        sides[i] = 0.0 if n_osc == 1 else (2.0 * i / (n_osc - 1) - 1.0) * width * (1.0 if i % 2 else -1.0)
    amp = 0.0
    for n in range(start, stop):
        t = (n - start) / rate
        if (n - start) % 16 == 0:  # what moves slowly is reckoned every 16 samples
            pitch = pitches[1] + (pitches[0] - pitches[1]) * np.exp(-t / glide) if glide > 0 else pitches[1]
            if vibrato > 0:
                pitch += vibrato * min(1.0, t / 0.5) * np.sin(2 * np.pi * 5.3 * t)
            for i in range(n_osc):
                off = 0.0 if n_osc == 1 else detune * (2.0 * i / (n_osc - 1) - 1.0)
                steps[i] = 440.0 * 2.0 ** ((pitch + off - 69.0) / 12.0) / rate
            octaves = sweep * np.exp(-t / fall)
            if lfo > 0:
                octaves += lfo * (0.5 - 0.5 * np.cos(2 * np.pi * (lfo_hz * n / rate)))
            hertz = min(17000.0, base_cut * 2.0**octaves)
            g = np.tan(np.pi * hertz / rate)
            a1 = 1.0 / (1.0 + g * (g + k))
            if n < start + hold:
                amp = min(1.0, t / attack) * (sustain + (1.0 - sustain) * np.exp(-t / decay))
                loud_at_end = amp
            else:
                amp = loud_at_end * np.exp(-(n - start - hold) / (release * rate))
        left = right = 0.0
        for i in range(n_osc):
            step = steps[i]
            x = phases[i]
            if shape == 2:
                wave = 4.0 * abs(x - 0.5) - 1.0
            else:
                wave = 2.0 * x - 1.0
                if x < step:
                    wave -= 2.0 * (x / step) - (x / step) ** 2 - 1.0
                elif x > 1.0 - step:
                    y = (x - 1.0) / step
                    wave -= y * y + 2.0 * y + 1.0
                if shape == 1:
                    x2 = x + pulse
                    if x2 >= 1.0:
                        x2 -= 1.0
                    other = 2.0 * x2 - 1.0
                    if x2 < step:
                        other -= 2.0 * (x2 / step) - (x2 / step) ** 2 - 1.0
                    elif x2 > 1.0 - step:
                        y = (x2 - 1.0) / step
                        other -= y * y + 2.0 * y + 1.0
                    wave = wave - other
            x += step
            phases[i] = x - 1.0 if x >= 1.0 else x
            left += wave * (1.0 - sides[i])
            right += wave * (1.0 + sides[i])
        if sub > 0:
            sub_phase += steps[0] * 0.5
            tone = 1.4 * sub * np.sqrt(n_osc) * np.sin(2 * np.pi * sub_phase)
            left += tone
            right += tone
        for c in range(2):
            v = left if c == 0 else right
            v3 = v - ic2[c]
            v1 = a1 * (ic1[c] + g * v3)
            v2 = ic2[c] + g * v1
            ic1[c] = 2.0 * v1 - ic1[c]
            ic2[c] = 2.0 * v2 - ic2[c]
            if drive > 0:
                v2 = np.tanh(drive * v2 * amp) / (0.5 + 0.5 * drive)
                out[c, n] += gain * v2
            else:
                out[c, n] += gain * amp * v2


@njit(cache=True, fastmath=True)  # type: ignore[misc, unused-ignore]
def _modulate(
    out: NDArray[np.float32], start: int, hold: int, pitches: NDArray[np.float64], level: float, p: NDArray[np.float64]
) -> None:
    """Add one FM note to both sides of ``out``; ``p``: see ``_row``."""
    ratio, index, floor, fall, drop, drop_time = p[0], p[1], p[2], p[3], p[4], p[5]
    attack, decay, sustain, release, drive, glide, vibrato = p[6], p[7], p[8], p[9], p[10], p[11], p[12]
    rate = 44100.0
    stop = min(out.shape[1], start + hold + int(4 * release * rate))
    phase = other = loud_at_end = amp = bend = step = 0.0
    for n in range(start, stop):
        t = (n - start) / rate
        if (n - start) % 8 == 0:
            pitch = pitches[1] + (pitches[0] - pitches[1]) * np.exp(-t / glide) if glide > 0 else pitches[1]
            pitch += 12.0 * drop * np.exp(-t / drop_time)
            if vibrato > 0:
                pitch += vibrato * min(1.0, t / 0.4) * np.sin(2 * np.pi * 5.1 * t)
            step = 2 * np.pi * 440.0 * 2.0 ** ((pitch - 69.0) / 12.0) / rate
            bend = index * (floor + (1.0 - floor) * np.exp(-t / fall))
            if n < start + hold:
                amp = min(1.0, t / attack) * (sustain + (1.0 - sustain) * np.exp(-t / decay))
                loud_at_end = amp
            else:
                amp = loud_at_end * np.exp(-(n - start - hold) / (release * rate))
        phase += step
        other += step * ratio
        value = amp * np.sin(phase + bend * np.sin(other))
        if drive > 0:
            value = np.tanh((1.0 + drive) * value) / np.tanh(1.0 + drive)
        out[0, n] += level * value
        out[1, n] += level * value


# The order in which the engines read a voice's numbers: that of its fields.
_SUBTRACTIVE, _FM = (tuple(field.name for field in dataclasses.fields(kind)) for kind in (Subtractive, Fm))


def _row(voice: Subtractive | Fm, colour: float, bpm: float) -> NDArray[np.float64]:
    """A voice as the engines read it: its numbers in order, a wobble in cycles a second."""
    numbers = {name: float(getattr(voice, name)) for name in (_FM if isinstance(voice, Fm) else _SUBTRACTIVE)}
    if isinstance(voice, Fm):
        numbers["index"] *= math.sqrt(colour)
    else:
        numbers["cutoff"] *= colour
        numbers["rate"] = voice.rate * bpm / 60.0 if voice.rate > 0 else -voice.rate
    return np.array(list(numbers.values()))


def play_voice(
    name: str, notes: list[tuple[int, int, int, int]], *, length: int, bpm: float, rng: np.random.Generator
) -> Sound:
    """Play notes on one of ``VOICES``.

    Args:
        name: of the voice.
        notes: (first sample, samples held, MIDI pitch, velocity), in order of time.
        length: T.
        bpm: tempo that a wobble keeps to.
        rng: source of the oscillators' phases and of small differences in colour from piece to piece.

    Returns:
        (2, T), about as loud as a part from the soundfont.
    """
    voice = VOICES[name]
    out = np.zeros((2, length), np.float32)
    # A wobble goes with the beat: once or twice, or three times in two beats.
    row = _row(voice, 2.0 ** rng.uniform(-0.35, 0.35), bpm * float(rng.choice((0.5, 0.75, 1.0))))
    before: tuple[int, int] | None = None
    for start, hold, pitch, velocity in notes:
        # A note slides from the one before it where they touch, as on a monophonic synthesizer.
        slides = before is not None and voice.glide > 0 and -0.02 * SAMPLE_RATE < start - before[1] < 0.04 * SAMPLE_RATE
        pitches = np.array([before[0] if slides and before else pitch, pitch], np.float64)
        level = 0.16 * (velocity / 100.0) ** 1.5
        if isinstance(voice, Subtractive):
            touched = row.copy()
            touched[_SUBTRACTIVE.index("cutoff")] *= (velocity / 100.0) ** 0.6
            _subtract(out, start, hold, pitches, level, rng.random(voice.voices), touched)
        else:
            _modulate(out, start, hold, pitches, 2.2 * level, row)
        before = (pitch, start + hold)
    return out
