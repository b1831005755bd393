"""Levels: peak, and loudness as ITU-R BS.1770-4 defines it."""

import math

import numpy
import torch
from torch import Tensor

from riff.utils.errors import RiffError


def peak_normalize(waveform: Tensor, *, peak: float = 0.89) -> Tensor:
    """Scale each clip so that its loudest sample is ``peak``; silence stays silence.

    Args:
        waveform: ``(..., C, T)`` or ``(T,)``; the channels of a clip are scaled together.
        peak: in (0, 1]; 0.89 is -1 dB.

    Raises:
        RiffError: ``peak`` is out of range.
    """
    _check_peak(peak)
    dims = (-2, -1) if waveform.ndim > 1 else (-1,)
    loudest = waveform.abs().amax(dim=dims, keepdim=True)
    return torch.where(loudest > 0, waveform * (peak / loudest), waveform)


def loudness(waveform: Tensor, sample_rate: int) -> float:
    """Integrated loudness in LUFS (ITU-R BS.1770-4, 2015: K-weighting, 400 ms blocks, two gates).

    Args:
        waveform: ``(C, T)`` or ``(T,)`` in [-1, 1], mono or stereo; less than 400 ms counts as one block.
        sample_rate: samples per second, in Hz.

    Returns:
        LUFS; minus infinity for silence.
    """
    samples = _k_weighted(torch.atleast_2d(waveform.detach()).double().cpu().numpy(), sample_rate)
    block = min(round(0.4 * sample_rate), samples.shape[-1])
    step = max(1, round(0.1 * sample_rate))
    energy = numpy.concatenate([[0.0], numpy.cumsum((samples**2).sum(axis=0))])
    starts = numpy.arange(0, samples.shape[-1] - block + 1, step)
    power = numpy.maximum(energy[starts + block] - energy[starts], 0.0) / block
    # The absolute gate at -70 LUFS, then one 10 LU below the mean of what it lets through.
    power = power[power > 10 ** ((-70.0 + 0.691) / 10)]
    if power.size:
        power = power[power > 0.1 * power.mean()]
    return -0.691 + 10.0 * math.log10(power.mean()) if power.size else -math.inf


def normalize_loudness(waveform: Tensor, sample_rate: int, *, lufs: float = -14.0, peak: float = 0.89) -> Tensor:
    """Scale a clip to a loudness, or as far as its peak allows; silence stays silence.

    Args:
        waveform: ``(C, T)`` or ``(T,)``.
        sample_rate: samples per second, in Hz.
        lufs: loudness wanted, in LUFS.
        peak: the loudest sample is at most this, in (0, 1].

    Raises:
        RiffError: ``peak`` or ``lufs`` is out of range.
    """
    _check_peak(peak)
    if not -70.0 <= lufs <= 0.0:
        raise RiffError(f"lufs is {lufs!r}; use a number from -70 to 0")
    now, loudest = loudness(waveform, sample_rate), float(waveform.abs().max())
    if loudest == 0.0:
        return waveform
    # A sound that no gate lets through is raised as far as a sound at the gate would be.
    gain = 10.0 ** ((lufs - max(now, -70.0)) / 20.0)
    return waveform * min(gain, peak / loudest)


def _check_peak(peak: float) -> None:
    if not 0.0 < peak <= 1.0:
        raise RiffError(f"peak is {peak!r}; use a number greater than 0 and at most 1")


def k_power(hertz: Tensor, sample_rate: int) -> Tensor:
    """How much of a tone's power counts as loudness: the standard's weighting, squared, at each frequency.

    Args:
        hertz: ``(F,)``, from 0 to half the sample rate.
        sample_rate: samples per second, in Hz.

    Returns:
        ``(F,)``, 1 near 1 kHz.
    """
    import scipy.signal

    _, response = scipy.signal.sosfreqz(_k_filters(sample_rate), worN=hertz.double().numpy(), fs=sample_rate)
    return torch.from_numpy(numpy.abs(response) ** 2).to(hertz)


def _k_weighted(samples: numpy.ndarray, sample_rate: int) -> numpy.ndarray:
    """``(C, T)`` through the standard's two filters."""
    import scipy.signal

    return numpy.asarray(scipy.signal.sosfilt(_k_filters(sample_rate), samples, axis=-1))


def _k_filters(sample_rate: int) -> list[list[float]]:
    """The standard's two filters in second-order sections, re-derived for any rate (De Man, 2014)."""
    # A high shelf of +4 dB for the head, then a high-pass; the standard gives their values at 48 kHz only.
    gain, quality = 10.0 ** (3.999843853973347 / 20.0), 0.7071752369554196
    middle = gain**0.4996667741545416
    k = math.tan(math.pi * 1681.974450955533 / sample_rate)
    scale = 1.0 + k / quality + k * k
    tail = [1.0, 2.0 * (k * k - 1.0) / scale, (1.0 - k / quality + k * k) / scale]
    head = [gain + middle * k / quality + k * k, 2.0 * (k * k - gain), gain - middle * k / quality + k * k]
    shelf = [value / scale for value in head] + tail
    quality = 0.5003270373238773
    k = math.tan(math.pi * 38.13547087602444 / sample_rate)
    scale = 1.0 + k / quality + k * k
    high_pass = [1.0, -2.0, 1.0, 1.0, 2.0 * (k * k - 1.0) / scale, (1.0 - k / quality + k * k) / scale]
    return [shelf, high_pass]
