"""Where music is cut into clips: whole bars from its own downbeats, or equal numbers of columns."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from riff.audio.channels import cancelling, mix
from riff.audio.reader import SoundReader, open_sound
from riff.music.beats import Beats, track_beats
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.tempo import TempoMap
from riff.train.data.settings import PrepareSettings
from riff.utils.errors import RiffError

EVEN_BPM = 120.0  # of clips without an even beat
EDGE = 0.05  # seconds of silence that may complete a clip at an end of a sound: beats are placed no better
LEAD = 0.25  # seconds of what was used that a next stretch begins with, so that its first beat has something before it
# What a clip's beats may be off an even, linearly changing tempo, as a share of a beat, root mean square.
MOST_UNEVEN = 0.04
# Beats 10 ms off at random stay below both.
MOST_CHANGE = 1.2  # longest beat of a clip over its shortest


@dataclasses.dataclass(frozen=True)
class Cut:
    """Where a clip is in a sound.

    Attributes:
        start: seconds; down to ``-EDGE``, where silence comes before the sound.
        end: seconds; up to ``EDGE`` after the sound's end.
        columns: of its image.
        beats: seconds of its beats and of the one that ends it; empty where none are known.
        steady: whether those beats are even enough to be trusted.
    """

    start: float
    end: float
    columns: int
    beats: tuple[float, ...] = ()
    steady: bool = True

    @property
    def bpm(self) -> float | None:
        """Mean tempo in beats per minute."""
        return 60.0 * (len(self.beats) - 1) / (self.end - self.start) if self.beats else None

    def beats_within(self) -> Beats | None:
        """Its beats counted from its start, as :func:`riff.music.beats.track_beats` gives them."""
        if not self.beats:
            return None
        times = tuple(time - self.start for time in self.beats)
        return Beats(times, 0, float(self.bpm or EVEN_BPM), max(0.0, 1.0 - math.sqrt(12.0) * unevenness(self.beats)))


@dataclasses.dataclass(frozen=True)
class CutPlan:
    """Cuts of a sound in order, and the second up to which it is used; the next block begins there."""

    cuts: list[Cut]
    used: float


def plan_cuts(
    sound: Tensor,
    settings: PrepareSettings,
    beats_per_bar: int,
    *,
    stated_bpm: float | None = None,
    beats: Beats | None = None,
) -> CutPlan:
    """Decide where to cut.

    Args:
        sound: (C, T) at the config's rate.
        settings: grid, bars and overlap.
        beats_per_bar: 3 or 4.
        stated_bpm: tempo that the words give, which settles whether every beat counts or every second one.
        beats: where they are known; by default they are tracked.
    """
    config, seconds = settings.config, sound.shape[-1] / settings.config.sample_rate
    if config.grid == "seconds":
        return _even(seconds, config.width * config.hop_length / config.sample_rate, config.width, settings.overlap)
    if beats is not None:
        return _on_beats(beats, seconds, settings, beats_per_bar)
    try:
        found = track_beats(sound, config.sample_rate, bpm=stated_bpm, beats_per_bar=beats_per_bar)
    except RiffError:  # too short, silent, or no beat
        return _on_even_beats(seconds, settings, beats_per_bar)
    return _on_beats(found, seconds, settings, beats_per_bar)


def beats_in_clip(settings: PrepareSettings, beats_per_bar: int) -> int:
    """Beats in a clip on the beats grid."""
    return settings.bars_per_clip * beats_per_bar


def unevenness(beats: tuple[float, ...]) -> float:
    """How far beats lie, root mean square, from the nearest tempo that changes evenly, as a share of their mean length.

    That is a parabola through the times, so a player's drift counts for nothing and a wrong beat for much.
    """
    times = np.asarray(beats)
    index = np.arange(len(times))
    off = times - np.polyval(np.polyfit(index, times, 2), index) if len(times) > 3 else np.zeros(1)
    return float(np.sqrt(np.mean(off**2)) / np.diff(times).mean())


def mels_of_cuts(sound: Tensor, cuts: list[Cut], config: SpectrogramConfig) -> list[Tensor]:
    """The mel of each cut, (C, M, N) >= 0, its ends seen in the context of the sound before and after.

    Args:
        sound: (C, T).
        cuts: of one kind: all with beats of one tracking, or all without.
        config: geometry.
    """
    from riff.spectrogram.mel import waveform_to_mel

    rate = config.sample_rate
    mels: list[Tensor] = []
    for run in _runs(cuts):
        start, end = run[0].start, max(cut.end for cut in run)
        part = stretch(sound, start, end, rate)
        if config.grid == "seconds":
            mel = waveform_to_mel(part, config)
            firsts = [round((cut.start - start) * rate / config.hop_length) for cut in run]
        else:
            times = sorted({time for cut in run for time in cut.beats})
            tempo = TempoMap.from_beats(times) if run[0].beats else TempoMap.constant(EVEN_BPM)
            mel = waveform_to_mel(part, config, bpm=tempo)
            firsts = [round(float(tempo.beats_at(cut.start - start)) * config.frames_per_beat) for cut in run]
        mels += [_columns(mel, first, cut.columns) for first, cut in zip(firsts, run, strict=True)]
    return mels


def stretch(sound: Tensor, start: float, end: float, rate: int) -> Tensor:
    """The samples from ``start`` to ``end`` seconds, silence where there are none."""
    first, last = round(start * rate), round(end * rate)
    part = sound[:, max(first, 0) : max(last, 0)]
    return torch.nn.functional.pad(part, (max(-first, 0), max(last - max(first, 0) - part.shape[-1], 0)))


def _columns(mel: Tensor, first: int, count: int) -> Tensor:
    part = mel[..., first : first + count]
    return torch.nn.functional.pad(part, (0, count - part.shape[-1]))  # rounding may cost a last column


def _runs(cuts: list[Cut]) -> list[list[Cut]]:
    """Cuts that touch or overlap, together: what they share is analysed once."""
    runs: list[list[Cut]] = []
    for cut in cuts:
        if runs and cut.start <= runs[-1][-1].end + 1e-6 and bool(cut.beats) == bool(runs[-1][-1].beats):
            runs[-1].append(cut)
        else:
            runs.append([cut])
    return runs


def _even(seconds: float, length: float, columns: int, overlap: float) -> CutPlan:
    """Equal clips from the start on, whose starts are whole columns apart."""
    column = length / columns
    step = max(1, round(columns * (1.0 - overlap))) * column
    count = max(0, math.floor((seconds - length) / step + 1e-9) + 1)
    return CutPlan([Cut(step * n, step * n + length, columns) for n in range(count)], step * count)


def _on_even_beats(seconds: float, settings: PrepareSettings, beats_per_bar: int) -> CutPlan:
    """The even grid on which music without a beat is laid, if it is kept at all."""
    count = beats_in_clip(settings, beats_per_bar)
    plan = _even(seconds, count * 60.0 / EVEN_BPM, count * settings.config.frames_per_beat, settings.overlap)
    return CutPlan([dataclasses.replace(cut, steady=False) for cut in plan.cuts], plan.used)


def _on_beats(found: Beats, seconds: float, settings: PrepareSettings, beats_per_bar: int) -> CutPlan:
    times, count = found.times, beats_in_clip(settings, beats_per_bar)
    step = max(1, round(settings.bars_per_clip * (1.0 - settings.overlap))) * beats_per_bar
    first, cuts = found.downbeat, []
    while first < len(times) and times[first] < -EDGE:
        first += beats_per_bar
    while first + count < len(times) and times[first + count] <= seconds + EDGE:
        beats = times[first : first + count + 1]
        intervals = np.diff(beats)
        steady = unevenness(beats) <= MOST_UNEVEN and float(intervals.max() / intervals.min()) <= MOST_CHANGE
        cuts.append(Cut(beats[0], beats[-1], count * settings.config.frames_per_beat, beats, steady))
        first += step
    return CutPlan(cuts, max(0.0, times[first] - LEAD) if first < len(times) else seconds)


# A sound file of any length read from front to back, a few seconds at a time.

LOUDEST = 1000.0  # samples of full scale beyond which a float file holds no sound


@dataclasses.dataclass
class SoundStream:
    """A sound file as it is read.

    Attributes:
        path: the file.
        sample_rate: samples per second of the chunks, in Hz.
        channels: 1 or 2, mixed from the file's as :func:`riff.audio.channels.mix` does.
        seconds: length by the file's header; None if it does not say.
        faults: what is wrong with it, each as one line.
        holes: spans in seconds that held NaN, infinite or absurdly loud samples, which are read as silence.

    Raises:
        RiffError: the file is missing, no sound, of a kind that is not read, or empty.
    """

    path: Path
    sample_rate: int
    channels: int
    seconds: float | None = None
    faults: list[str] = dataclasses.field(default_factory=list)
    holes: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    _only: int | None = dataclasses.field(default=None, init=False)

    def chunks(self) -> Iterator[Tensor]:
        """Yield ``(C, t)`` float32 up to the end, or up to where the file is damaged beyond reading on."""
        import soxr

        with open_sound(self.path) as sound:
            rate, done = sound.sample_rate, 0
            self.seconds = None if sound.frames is None else sound.frames / rate
            converter = None
            if rate != self.sample_rate:
                converter = soxr.ResampleStream(rate, self.sample_rate, self.channels, dtype="float32", quality="VHQ")
            for block in sound.blocks():
                samples = self._without_holes(self._mixed(block, sound), done / rate, rate)
                done += len(block)
                if converter is not None:
                    samples = converter.resample_chunk(samples)
                if len(samples):
                    yield torch.from_numpy(np.ascontiguousarray(samples.T))
            if converter is not None:
                rest = converter.resample_chunk(np.zeros((0, self.channels), dtype=np.float32), last=True)
                if len(rest):
                    yield torch.from_numpy(np.ascontiguousarray(rest.T))
            if done == 0:
                raise RiffError(f"{self.path} holds no sound (0 samples)")
            self.faults += sound.faults

    def _mixed(self, samples: np.ndarray, sound: SoundReader) -> np.ndarray:
        """``(t, C)`` of the wanted channels; where two cancel, the louder one is used from there on."""
        waveform = torch.from_numpy(samples.T)
        if self.channels == 1 and len(waveform) == 2:
            if self._only is None:
                self._only = cancelling(waveform)
                if self._only is not None:
                    self.faults.append(f"its channels are out of phase and cancel; channel {self._only + 1} is used")
            mixed = waveform.mean(0, keepdim=True) if self._only is None else waveform[self._only : self._only + 1]
        elif self.channels == 2 and len(waveform) > 2 and sound.layout is None:
            mixed = mix(waveform, 1).expand(2, -1)  # nobody says what is left and what is right
        else:
            mixed = mix(waveform, self.channels, sound.layout)
        return mixed.T.numpy()

    def _without_holes(self, samples: np.ndarray, start: float, rate: int) -> np.ndarray:
        """The samples with zeros where there is no sound, which is noted in ``holes``, joined within a second."""
        wrong = ~(np.abs(samples) < LOUDEST).all(axis=1)  # NaN is not less either
        if not wrong.any():
            return samples
        if not self.holes:
            self.faults.append("it holds NaN, infinite or absurd samples; clips with such were left out")
        for second in np.unique(np.flatnonzero(wrong) // rate):
            first, last = start + float(second), start + float(second) + 1.0
            if self.holes and first <= self.holes[-1][1] + 1e-6:
                self.holes[-1] = (self.holes[-1][0], last)
            else:
                self.holes.append((first, last))
        return np.where(wrong[:, None], np.float32(0.0), samples)


def blocks(stream: SoundStream, *, seconds: float) -> Iterator[tuple[Tensor, bool]]:
    """Join a stream's chunks to blocks about equally long.

    Args:
        stream: to read.
        seconds: length of a block; where the file says its length, blocks are up to a third longer or shorter, so that
            none is a mere rest.

    Yields:
        ``(C, T)`` and whether it is the last.
    """
    held: list[Tensor] = []
    size, length = 0, 0
    for chunk in stream.chunks():
        if not length:
            known = stream.seconds
            parts = 1 if known is None else max(1, round(known / seconds))
            length = math.ceil((seconds if known is None else known / parts) * stream.sample_rate) + 1
        while size + chunk.shape[-1] > length:
            head, chunk = chunk[:, : length - size], chunk[:, length - size :]
            yield torch.cat([*held, head], dim=-1), False
            held, size = [], 0
        held.append(chunk)
        size += chunk.shape[-1]
    yield torch.cat(held, dim=-1) if held else torch.zeros(stream.channels, 0), True
