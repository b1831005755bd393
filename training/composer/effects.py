"""What a mixing desk does to sound, in numpy: filters, chorus, amplifier, rooms, compression, tape and a limiter.

Sound is float32, shape (2, T), at 44.1 kHz; nothing here draws random numbers but from a generator that is given.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, minimum_filter1d, uniform_filter1d
from scipy.signal import butter, iirpeak, oaconvolve, resample_poly, sosfilt

from riff.audio.loudness import loudness

SAMPLE_RATE = 44100
Sound = NDArray[np.float32]


@lru_cache(maxsize=256)
def _butter(order: int, hertz: float, kind: str) -> np.ndarray:
    return np.asarray(butter(order, min(hertz, 0.49 * SAMPLE_RATE), kind, fs=SAMPLE_RATE, output="sos"))


def highpass(sound: Sound, hertz: float, order: int = 2) -> Sound:
    """Take away what lies below ``hertz``."""
    return np.asarray(sosfilt(_butter(order, hertz, "highpass"), sound), np.float32)


def lowpass(sound: Sound, hertz: float, order: int = 2) -> Sound:
    """Take away what lies above ``hertz``."""
    return np.asarray(sosfilt(_butter(order, hertz, "lowpass"), sound), np.float32)


def shelf(sound: Sound, hertz: float, decibels: float) -> Sound:
    """Raise (or lower) everything above ``hertz`` by some decibels, gently."""
    gain = 10 ** (decibels / 20) - 1
    return np.asarray(sound + gain * highpass(sound, hertz, 1), np.float32)


def peak(sound: Sound, hertz: float, decibels: float, quality: float = 1.0) -> Sound:
    """Raise (or lower) a band around ``hertz``."""
    b, a = iirpeak(hertz, quality, fs=SAMPLE_RATE)
    band = sosfilt(np.concatenate([b, a])[None], sound)
    return np.asarray(sound + (10 ** (decibels / 20) - 1) * band, np.float32)


def delayed(sound: Sound, samples: NDArray[np.float32]) -> Sound:
    """One channel or more read later by a changing number of samples, at least 1, shape (T,)."""
    length = sound.shape[-1]
    where = np.arange(length, dtype=np.float32) - samples
    whole = np.floor(where).astype(np.int64)
    part = (where - whole).astype(np.float32)
    low, high = np.clip(whole, 0, length - 1), np.clip(whole + 1, 0, length - 1)
    read = sound[..., low] * (1 - part) + sound[..., high] * part
    return np.where(where >= 0, read, 0).astype(np.float32)


def shifted(sound: Sound, samples: int) -> Sound:
    """The sound later by whole samples, of the same length."""
    found = np.zeros_like(sound)
    if samples < sound.shape[-1]:
        found[..., samples:] = sound[..., : sound.shape[-1] - samples]
    return found


def chorus(sound: Sound, *, depth: float, mix: float, rate: float = 0.6, phase: float = 0.0) -> Sound:
    """Two slowly wandering copies, one a side.

    Args:
        sound: (2, T).
        depth: how far the copies wander, in milliseconds.
        mix: level of the copies beside the sound.
        rate: of the wandering, in Hz.
        phase: where in its circle the wandering begins, 0 to 1.
    """
    time = np.arange(sound.shape[-1], dtype=np.float32) / SAMPLE_RATE
    mono = sound.mean(0)
    wet = []
    for side in (0.0, 0.33):
        sweep = np.sin(2 * np.pi * (rate * (1 + 0.2 * side) * time + phase + side)).astype(np.float32)
        samples = (8.0 + 6 * side + depth * (1 + sweep)) * (SAMPLE_RATE / 1000)
        wet.append(delayed(mono, samples.astype(np.float32)))
    return np.asarray((sound + mix * np.stack(wet)) / (1 + 0.5 * mix), np.float32)


def tremolo(sound: Sound, *, rate: float, depth: float, phase: float = 0.0) -> Sound:
    """The sound swings from side to side."""
    time = np.arange(sound.shape[-1], dtype=np.float32) / SAMPLE_RATE
    swing = (depth * np.sin(2 * np.pi * (rate * time + phase))).astype(np.float32)
    swung = np.stack([sound[0] * (1 + swing), sound[1] * (1 - swing)])
    return np.asarray(swung / (1 + 0.3 * depth), np.float32)


def widened(sound: Sound, width: float) -> Sound:
    """Scale the difference of the two sides; 0 is mono, 1 leaves it, 2 doubles it."""
    mid, side = sound.mean(0), (sound[0] - sound[1]) * np.float32(0.5 * width)
    return np.stack([mid + side, mid - side])


@lru_cache(maxsize=32)
def _scatter(seed: int) -> NDArray[np.float32]:
    """An impulse smeared over 25 ms, all frequencies equally loud: what makes two sides of one."""
    rng = np.random.default_rng(seed)
    length = 1102
    phases = np.exp(1j * np.cumsum(rng.uniform(-2.0, 2.0, length // 2 + 1)))
    phases[0] = 1.0
    pulse = np.fft.irfft(phases, length) * np.hanning(2 * length)[length:]
    return (pulse / np.sqrt((pulse**2).sum())).astype(np.float32)


def spread(sound: Sound, amount: float, seed: int) -> Sound:
    """Give a narrow sound a width: its smeared copy with opposite signs left and right."""
    mono = highpass(sound.mean(0), 180, 1)
    side = oaconvolve(mono, _scatter(seed % 32))[: sound.shape[-1]] * amount
    return np.asarray(np.stack([sound[0] + side, sound[1] - side]), np.float32)


def panned(sound: Sound, pan: float) -> Sound:
    """Turn towards the left (-1) or right (1) with constant power in the middle of the way."""
    angle = (pan + 1) * np.pi / 4
    left, right = np.sqrt(2) * np.cos(angle), np.sqrt(2) * np.sin(angle)
    # What would be lost of the side turned away from is moved over rather than dropped.
    cross_right, cross_left = max(0.0, pan) * 0.5, max(0.0, -pan) * 0.5
    return np.stack(
        [left * sound[0] + cross_left * left * sound[1], right * sound[1] + cross_right * right * sound[0]]
    ).astype(np.float32) / np.float32(1 + 0.35 * abs(pan))


def amplified(sound: Sound, *, drive: float, tone: float, seed: int) -> Sound:
    """A guitar through a valve amplifier and a cabinet, each side its own take, so that it is wide.

    Args:
        sound: (2, T); only its sum is used.
        drive: 1 is clean, 30 is metal.
        tone: upper end of the loudspeaker, in Hz, about 3000 to 6000.
        seed: of the difference between the sides.
    """
    rng = np.random.default_rng(seed)
    mono = highpass(sound.mean(0), 90 if drive < 8 else 120)
    level = float(np.sqrt((mono[np.abs(mono) > 1e-4] ** 2).mean())) if np.any(np.abs(mono) > 1e-4) else 1.0
    mono = peak(mono / np.float32(level + 1e-9), 800, 5.0, 0.7) * np.float32(0.4)
    double = resample_poly(mono, 2, 1).astype(np.float32)  # an octave of room for what the valve adds
    hot = np.tanh(drive * double + 0.15) - np.tanh(0.15)
    hot = np.asarray(resample_poly(hot, 1, 2)[: sound.shape[-1]], np.float32)
    wander = 60 * (1 + np.sin(np.arange(len(hot), dtype=np.float32) * (2 * np.pi * 0.31 / SAMPLE_RATE) + seed))
    if drive > 8:  # a gate, as every metal player has: what rings between two strokes is not amplified
        loud = uniform_filter1d(np.abs(mono), 441)
        hot *= uniform_filter1d(np.clip((loud / (maximum_filter1d(loud, 8820) + 1e-3) - 0.3) / 0.25, 0, 1), 221)
    sides = (hot, delayed(hot, (rng.uniform(480, 900) + wander).astype(np.float32)))
    cabinets = []
    for side in sides:
        edge = tone * rng.uniform(0.9, 1.1)
        boxed = lowpass(lowpass(highpass(side, 85), edge, 4), 1.25 * edge, 2)
        boxed = peak(boxed, rng.uniform(110, 150), 3.0, 1.2)
        cabinets.append(peak(boxed, rng.uniform(2200, 3200), 5.0, 1.5))
    left, right = cabinets
    return np.stack([left + 0.35 * right, right + 0.35 * left]) * np.float32(level * 0.9)


@lru_cache(maxsize=24)
def room(seconds: float, brightness: float, before: float, seed: int) -> Sound:
    """The echo of a room: dense noise that dies away, the highs sooner, other noise on each side.

    Args:
        seconds: time to fall by 60 dB in the middle of the spectrum.
        brightness: 0 dark (hall, spring) to 1 bright (plate).
        before: pause before the echo, in seconds.
        seed: which room.

    Returns:
        (2, T) with unit energy a side.
    """
    rng = np.random.default_rng(seed)
    length = round(1.1 * seconds * SAMPLE_RATE)
    time = np.arange(length) / SAMPLE_RATE
    echo = np.zeros((2, length), np.float32)
    bands = (
        (120, 350, 1.15),
        (350, 1200, 1.0),
        (1200, 4000, 0.55 + 0.4 * brightness),
        (4000, 15000, 0.2 + 0.55 * brightness),
    )
    for low, high, share in bands:
        noise = sosfilt(
            butter(2, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos"), rng.standard_normal((2, length))
        )
        echo += (noise * 10 ** (-3 * time / (seconds * share))).astype(np.float32)
    rise = round(0.012 * SAMPLE_RATE)
    echo[:, :rise] *= np.linspace(0.2, 1.0, rise, dtype=np.float32)
    for _ in range(10):  # the first walls
        at = round(rng.uniform(0.004, 0.045) * SAMPLE_RATE)
        echo[rng.integers(2), at] += rng.choice((-1, 1)) * float(np.abs(echo).max()) * rng.uniform(0.5, 1.5)
    echo = np.pad(echo, ((0, 0), (round(before * SAMPLE_RATE), 0)))
    return np.asarray(echo / np.sqrt((echo**2).sum(1, keepdims=True)), np.float32)


def reverberated(send: Sound, echo: Sound) -> Sound:
    """What a room answers to a sound, of the sound's length; the answer to each side is heard on both."""
    crossed = np.stack([0.8 * send[0] + 0.2 * send[1], 0.2 * send[0] + 0.8 * send[1]])
    return np.asarray(oaconvolve(crossed, echo, axes=-1)[:, : send.shape[-1]], np.float32)


def echoed(send: Sound, *, seconds: float, feedback: float) -> Sound:
    """Echoes that jump from side to side and lose their highs."""
    found = np.zeros_like(send)
    step, wave = round(seconds * SAMPLE_RATE), highpass(send.mean(0), 200)
    for number in range(1, 5):
        wave = lowpass(wave, 5200 - 600 * number, 1)
        if number * step >= send.shape[-1]:
            break
        found[number % 2, number * step :] += (
            np.float32(feedback ** (number - 1)) * wave[: send.shape[-1] - number * step]
        )
    return found


@njit(cache=True)  # type: ignore[misc, unused-ignore]
def _envelope(
    level: NDArray[np.float32], threshold: float, ratio: float, attack: float, release: float
) -> NDArray[np.float32]:
    gain = np.empty_like(level)
    held = 0.0
    for n in range(len(level)):
        over = max(0.0, 20.0 * np.log10(level[n] + 1e-9) - threshold)
        wanted = over * (1.0 - 1.0 / ratio)
        speed = attack if wanted > held else release
        held += (wanted - held) * speed
        gain[n] = 10.0 ** (-held / 20.0)
    return gain


def compressed(sound: Sound, *, threshold: float, ratio: float, attack: float = 0.012, release: float = 0.16) -> Sound:
    """Turn down what is louder than ``threshold`` decibels above the sound's own mean level.

    Args:
        sound: (2, T).
        threshold: in decibels relative to the root mean square of the whole.
        ratio: 4 means four decibels in, one decibel out.
        attack: in seconds.
        release: in seconds.
    """
    hop = 32
    level = np.abs(sound).max(0)
    mean = float(np.sqrt((sound**2).mean()))
    if mean < 1e-7:
        return sound
    blocks = np.pad(level, (0, -len(level) % hop)).reshape(-1, hop).max(1)
    rates = [1 - np.exp(-hop / (seconds * SAMPLE_RATE)) for seconds in (attack, release)]
    gain = _envelope(blocks, 20 * np.log10(mean) + threshold, ratio, *rates)
    points = np.interp(np.arange(len(level)), np.arange(len(gain)) * hop, gain).astype(np.float32)
    return np.asarray(sound * points, np.float32)


def pumped(length: int, hits: list[int], *, depth: float, seconds: float) -> NDArray[np.float32]:
    """The gain that ducks under every kick and swells back, shape (T,)."""
    gain = np.ones(length, np.float32)
    span = round(seconds * SAMPLE_RATE)
    curve = (1 - depth * (1 - np.linspace(0, 1, span) ** 1.5)).astype(np.float32)
    fall = round(0.004 * SAMPLE_RATE)
    curve[:fall] = np.linspace(1, curve[fall], fall)
    for hit in hits:
        stop = min(length, hit + span)
        if hit < length:
            gain[hit:stop] = np.minimum(gain[hit:stop], curve[: stop - hit])
    return gain


def driven(sound: Sound, amount: float) -> Sound:
    """A little saturation: peaks are rounded, overtones appear."""
    level = float(np.sqrt((sound**2).mean())) * 4 + 1e-9
    return np.asarray(np.tanh(sound / level * amount) * (level / np.tanh(amount) / 1.15), np.float32)


def taped(sound: Sound, rng: np.random.Generator, *, wear: float) -> Sound:
    """Old tape and vinyl: a tired top, wow and flutter, crackle and hiss.

    Args:
        sound: (2, T).
        rng: source of the crackle.
        wear: 0 hardly, 1 much.
    """
    length = sound.shape[-1]
    time = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    wow = 70 * wear * np.sin(2 * np.pi * (0.55 * time + rng.random())) + 6 * wear * np.sin(2 * np.pi * 6.3 * time)
    worn = lowpass(delayed(driven(sound, 0.8), (90 * wear + 2 + wow).astype(np.float32)), 11000 - 6500 * wear)
    level = float(np.sqrt((sound**2).mean()))
    hiss = highpass(rng.standard_normal((2, length)).astype(np.float32), 1500, 1) * np.float32(
        0.006 * level * (1 + wear)
    )
    clicks = np.zeros((2, length), np.float32)
    count = rng.poisson(length / SAMPLE_RATE * 14 * wear)
    clicks[rng.integers(0, 2, count), rng.integers(0, length, count)] = rng.exponential(1.0, count) * rng.choice(
        (-1, 1), count
    )
    crackle = lowpass(highpass(clicks, 900, 1), 7000, 1) * np.float32(1.6 * level)
    return np.asarray(worn + hiss + crackle, np.float32)


def crushed(sound: Sound, *, bits: int, hold: int) -> Sound:
    """A sampler's few bits and low rate: every ``hold``-th sample is kept for ``hold`` samples."""
    steps = 2.0 ** (bits - 1)
    level = float(np.abs(sound).max()) + 1e-9
    kept = np.repeat(sound[:, ::hold], hold, axis=1)[:, : sound.shape[-1]]
    return np.asarray(np.round(kept / level * steps) / steps * level, np.float32)


def limited(sound: Sound, ceiling: float = 0.9) -> Sound:
    """No sample above ``ceiling``: the gain falls 2 ms before a peak and comes back over 60 ms."""
    over = np.minimum(1.0, ceiling / (np.abs(sound).max(0) + 1e-9)).astype(np.float32)
    if over.min() >= 1.0:
        return sound
    ahead = 88
    gain = minimum_filter1d(over, 2 * ahead + 1)
    slow = minimum_filter1d(over, 2646)
    gain = np.minimum(uniform_filter1d(gain, 2 * ahead + 1), 0.5 * (1 + uniform_filter1d(slow, 2646)))
    # The mean of minima over its own width never exceeds what the peak allows; clip what rounding leaves.
    return np.clip(sound * gain, -ceiling, ceiling).astype(np.float32)


def mastered(sound: Sound, lufs: float, ceiling: float = 0.9) -> Sound:
    """The whole at a loudness, under a limiter; a second pass makes up what the limiter took."""
    import torch

    for _ in range(2):
        now = loudness(torch.from_numpy(sound), SAMPLE_RATE)
        if now == -np.inf:
            return sound
        sound = limited(np.asarray(sound * 10 ** (min(lufs - now, 40.0) / 20), np.float32), ceiling)
    return sound
