"""A recording aligned with the model's grid through its own beats, and brought to the level that the model knows."""

import dataclasses
import math
import warnings
from typing import Literal

import torch
from torch import Tensor

from riff.audio.channels import cancelling
from riff.audio.io import resample
from riff.music.beats import REMEDY, NoBeat, track_beats
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.tempo import TempoMap

# Root mean square level of composed music, which riff's own models were trained on, in decibels of full scale.
LEVEL = -20.3
MOST_WIDENING = 4.0  # of a generated side, which may have come out nearly silent
Source = Literal["given", "found", "none"]


@dataclasses.dataclass(frozen=True)
class Recording:
    """A sound as it came.

    Attributes:
        waveform: ``(C, T)``, one channel or two.
        sample_rate: samples per second.
    """

    waveform: Tensor
    sample_rate: int


@dataclasses.dataclass(frozen=True)
class AlignedAudio:
    """A recording on the grid.

    Attributes:
        waveform: ``(R, C, T)``, silence before the first downbeat included: C channels as the model's config has them;
            R is 2 where a model of one channel works on mid and side of a stereo recording, half the sum and half the
            difference of left and right; else 1.
        tempo: from beats of the canvas, which begins on a downbeat, to seconds of ``waveform``.
        lead: samples of ``waveform`` before the recording begins.
        gain: that brought the recording to the model's level.
        beats_per_bar: 3 or 4.
        rate: samples of ``waveform`` per second.
        beats: where they come from: "given" by the caller, "found" in the sound, or "none", where the grid is in
            seconds.
    """

    waveform: Tensor
    tempo: TempoMap
    lead: int
    gain: float
    beats_per_bar: int
    rate: int
    beats: Source

    @property
    def bpm(self) -> float:
        """Mean tempo in beats per minute."""
        seconds = self.waveform.shape[-1] / self.rate
        return float(self.tempo.beats_at(seconds)) / seconds * 60.0


def align_to_grid(
    recording: Recording,
    config: SpectrogramConfig,
    *,
    bpm: float | None,
    downbeat: float | None,
    beats_per_bar: int,
    fallback_bpm: float = 120.0,
) -> AlignedAudio:
    """Align a recording with the grid.

    Args:
        recording: at any rate.
        config: of the model.
        bpm: its tempo; None finds the beats, which then need not be steady.
        downbeat: seconds to a first beat of a bar; None finds it.
        beats_per_bar: 3 or 4.
        fallback_bpm: where no beat is found, the grid is one in seconds: its columns are equally long, as at this
            tempo, and begin with the recording or on its ``downbeat``. A warning says so.
    """
    rate, fitted = config.sample_rate, to_model_channels(recording, config)
    mono = _mono(fitted)
    gain = _gain(mono, config)
    beats: Source
    if config.grid == "seconds":
        tempo, lead, beats = TempoMap.constant(bpm or fallback_bpm), 0, _source(bpm)
    elif bpm is not None and downbeat is not None:
        tempo, lead, beats = *_even(bpm, downbeat, beats_per_bar, rate), _source(bpm)
    else:
        try:
            tempo, lead = _tracked(mono, rate, bpm, downbeat, beats_per_bar)
            beats = "found" if bpm is None else "given"
        except NoBeat as error:
            tempo, lead = _even(fallback_bpm, downbeat or 0.0, beats_per_bar, rate)
            beats = "none"
            warnings.warn(
                f"{error.problem}; it is aligned with seconds instead, as an even grid of {fallback_bpm:.4g} bpm "
                f"({60.0 / fallback_bpm:.3g} s a beat); {REMEDY}",
                stacklevel=2,
            )
    padded = torch.nn.functional.pad(fitted * gain, (lead, 0))
    return AlignedAudio(padded, tempo, lead, gain, beats_per_bar, rate, beats)


def align_stem(stem: Recording, whole: AlignedAudio, config: SpectrogramConfig) -> AlignedAudio:
    """A stem of a recording on the grid of the whole, by itself at the level that the model knows.

    Args:
        stem: as long as the recording that ``whole`` was made of, at its rate and in its channels.
        whole: aligned, since its beats are clearer than a stem's.
        config: of the model.
    """
    fitted = to_model_channels(stem, config)
    gain = _gain(_mono(fitted), config)
    return dataclasses.replace(whole, waveform=torch.nn.functional.pad(fitted * gain, (whole.lead, 0)), gain=gain)


def _mono(fitted: Tensor) -> Tensor:
    """``(1, T)``: the middle of a recording, or the louder side where that is silent."""
    stereo = to_stereo(fitted) if len(fitted) == 2 else fitted[0]
    loudest = cancelling(stereo)
    return fitted[0].mean(0, keepdim=True) if loudest is None else stereo[loudest : loudest + 1]


def _gain(mono: Tensor, config: SpectrogramConfig) -> float:
    """The gain that brings a sound to the model's level; 1 where the model has no level, or the sound is silent."""
    if config.amplitude != "decibel":
        return 1.0
    loudness = 20.0 * math.log10(float(mono.square().mean().sqrt()) + 1e-9)
    return 10.0 ** ((LEVEL - loudness) / 20.0) if loudness > -80.0 else 1.0


def to_model_channels(recording: Recording, config: SpectrogramConfig) -> Tensor:
    """``(R, C, T)`` at the config's rate, in its channels; see :class:`AlignedAudio`."""
    waveform = resample(recording.waveform, recording.sample_rate, config.sample_rate)
    if config.channels == 2:
        return waveform.expand(2, -1)[None]
    if len(waveform) == 2:
        waveform = torch.stack([waveform.sum(0), waveform[0] - waveform[1]]) / 2
    return waveform[:, None]


def to_stereo(fitted: Tensor) -> Tensor:
    """The inverse of :func:`to_model_channels`: ``(1|2, T)``, left and right of a stereo recording."""
    if len(fitted) == 1:
        return fitted[0]
    mid, side = fitted[:, 0]
    return torch.stack([mid + side, mid - side])


def _source(bpm: float | None) -> Source:
    return "none" if bpm is None else "given"


def _even(bpm: float, downbeat: float, beats_per_bar: int, rate: int) -> tuple[TempoMap, int]:
    """Equal beats from the downbeat at or before the start on, and the samples between that and the start."""
    bar = beats_per_bar * 60.0 / bpm
    return TempoMap.constant(bpm), round((math.ceil(downbeat / bar - 1e-6) * bar - downbeat) * rate)


def match_stereo_width(sound: Tensor, aligned: AlignedAudio, where: slice = slice(None)) -> Tensor:
    """Generated sound ``(R, C, T)``, as wide there as the recording is: with the same level of side against mid.

    A model of one channel makes a side as loud as any music. The side of what is in the middle stays silent.
    """
    if len(sound) == 1:
        return sound
    (old_mid, old_side), (mid, side) = (x[:, 0].square().mean(-1) for x in (aligned.waveform, sound[..., where]))
    if not bool(old_mid > 0) or not bool(side > 0):
        return sound
    share = (old_side * mid / (old_mid * side)).sqrt().clamp(max=MOST_WIDENING)
    return sound * torch.stack([torch.ones_like(share), share])[:, None, None]


def _tracked(
    mono: Tensor, rate: int, bpm: float | None, downbeat: float | None, beats_per_bar: int
) -> tuple[TempoMap, int]:
    """Tempo map from the downbeat at or before the start on, and the samples between that and the start.

    Raises:
        NoBeat: there is none.
    """
    found = track_beats(mono, rate, bpm=bpm, beats_per_bar=beats_per_bar)
    times = [float(time) for time in found.times]
    first = found.downbeat
    if downbeat is not None:
        first = min(range(len(times)), key=lambda index: abs(times[index] - downbeat))
    interval = times[1] - times[0]
    first %= beats_per_bar
    while times[first] > 1e-6:  # a bar earlier, at the first interval
        times = [times[0] - interval * count for count in range(beats_per_bar, 0, -1)] + times
    start = times[first]
    return TempoMap.from_beats([time - start for time in times[first:]]), round(-start * rate)
