"""Where a stretch of music is cut into clips: whole bars from its own downbeats, or equal numbers of columns."""

import dataclasses
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from riff.audio.formats import READABLE, sniff_container
from riff.audio.io import MAX_CHANNELS, SAMPLE_RATES
from riff.music.beats import Beats, track_beats
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.tempo import TempoMap
from riff.train.data.settings import PrepareSettings
from riff.utils.errors import RiffError

EVEN_BPM = 120.0  # of clips in which no even beat is heard
EDGE = 0.05  # seconds of silence that may complete a clip at an end of a sound: beats are placed no better
LEAD = 0.25  # seconds of what was used that a next stretch begins with, so that its first beat has something before it
# What a clip's beats may be off an even, linearly changing tempo, as a share of a beat, root mean square.
MOST_UNEVEN = 0.04
# Beats 10 ms off at random stay below both.
MOST_CHANGE = 1.2  # longest beat of a clip over its shortest


@dataclasses.dataclass(frozen=True)
class Cut:
    """Where a clip lies in a sound.

    Attributes:
        start: seconds; down to ``-EDGE``, where silence comes before the sound.
        end: seconds; up to ``EDGE`` after the sound's end.
        columns: of its picture.
        beats: seconds of its beats and of the one that ends it; empty where none are known.
        steady: whether those beats are even enough to be believed.
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
class Plan:
    """Cuts of a sound in order, and the seconds after which the next stretch begins with what was not cut."""

    cuts: list[Cut]
    used: float


def plan_cuts(sound: Tensor, settings: PrepareSettings, beats_per_bar: int, *, stated_bpm: float | None = None) -> Plan:
    """Decide where to cut.

    Args:
        sound: (C, T) at the config's rate.
        settings: grid, bars and overlap.
        beats_per_bar: 3 or 4.
        stated_bpm: tempo that the words tell, which settles whether every beat counts or every second one.
    """
    config, seconds = settings.config, sound.shape[-1] / settings.config.sample_rate
    if config.grid == "seconds":
        return _even(seconds, config.width * config.hop_length / config.sample_rate, config.width, settings.overlap)
    try:
        found = track_beats(sound.mean(0), config.sample_rate, bpm=stated_bpm, beats_per_bar=beats_per_bar)
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


def draw_span(sound: Tensor, cuts: list[Cut], config: SpectrogramConfig) -> list[Tensor]:
    """The mel of each cut, (C, M, N) >= 0, its ends seen in the context of the sound before and after.

    Args:
        sound: (C, T).
        cuts: of one kind: all with beats of one tracking, or all without.
        config: geometry.
    """
    from riff.spectrogram.mel import waveform_to_mel

    rate = config.sample_rate
    drawn: list[Tensor] = []
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
        drawn += [_columns(mel, first, cut.columns) for first, cut in zip(firsts, run, strict=True)]
    return drawn


def stretch(sound: Tensor, start: float, end: float, rate: int) -> Tensor:
    """The samples from ``start`` to ``end`` seconds, silence where there are none."""
    first, last = round(start * rate), round(end * rate)
    part = sound[:, max(first, 0) : max(last, 0)]
    return torch.nn.functional.pad(part, (max(-first, 0), max(last - max(first, 0) - part.shape[-1], 0)))


def _columns(mel: Tensor, first: int, count: int) -> Tensor:
    part = mel[..., first : first + count]
    return torch.nn.functional.pad(part, (0, count - part.shape[-1]))  # rounding may cost a last column


def _runs(cuts: list[Cut]) -> list[list[Cut]]:
    """Cuts that touch or overlap, together: nothing between them is drawn, and what they share is drawn once."""
    runs: list[list[Cut]] = []
    for cut in cuts:
        if runs and cut.start <= runs[-1][-1].end + 1e-6 and bool(cut.beats) == bool(runs[-1][-1].beats):
            runs[-1].append(cut)
        else:
            runs.append([cut])
    return runs


def _even(seconds: float, length: float, columns: int, overlap: float) -> Plan:
    """Equal clips from the start on, whose starts are whole columns apart."""
    column = length / columns
    step = max(1, round(columns * (1.0 - overlap))) * column
    count = max(0, math.floor((seconds - length) / step + 1e-9) + 1)
    return Plan([Cut(step * n, step * n + length, columns) for n in range(count)], step * count)


def _on_even_beats(seconds: float, settings: PrepareSettings, beats_per_bar: int) -> Plan:
    """The even grid on which music without a beat is laid, if it is kept at all."""
    count = beats_in_clip(settings, beats_per_bar)
    plan = _even(seconds, count * 60.0 / EVEN_BPM, count * settings.config.frames_per_beat, settings.overlap)
    return Plan([dataclasses.replace(cut, steady=False) for cut in plan.cuts], plan.used)


def _on_beats(found: Beats, seconds: float, settings: PrepareSettings, beats_per_bar: int) -> Plan:
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
    return Plan(cuts, max(0.0, times[first] - LEAD) if first < len(times) else seconds)


# WAS riff/prepare/stream.py: A sound file of any length read from front to back, a few seconds at a time.

LOUDEST = 1000.0  # samples of full scale beyond which a float file holds no sound
_CHUNK = 1 << 15  # frames; of a file that cannot be read on, so many before the damage are lost
_UNKNOWN = 1 << 60  # frames that libsndfile claims where a file does not say how many it has


class _Unseekable(soundfile.SoundFile):
    """Reads on without the seek that soundfile makes after each read, which loses what an MP3 frame has in reserve."""

    def seekable(self) -> bool:
        return False


@dataclasses.dataclass
class Stream:
    """A sound file as it is read.

    Attributes:
        path: the file.
        sample_rate: samples per second of what is yielded.
        channels: 1 averages the file's channels; 2 takes its first two, or doubles the only one.
        seconds: length by the file's header; None if it does not say.
        faults: what was found wrong, in words.
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

    def chunks(self) -> Iterator[Tensor]:
        """Yield ``(C, t)`` float32 up to the end, or up to where the file is damaged beyond reading on."""
        container = sniff_container(self.path)
        self._check_size()
        try:
            with _Unseekable(str(self.path)) as file:
                self._check_header(file)
                yield from self._resampled(file)
        except soundfile.SoundFileError as error:
            reason = getattr(error, "error_string", str(error)).removeprefix("Error : ").strip().rstrip(".")
            raise RiffError(f"not a readable {container} file ({reason}); use {READABLE}") from error

    def _check_header(self, file: soundfile.SoundFile) -> None:
        low, high = SAMPLE_RATES
        if not low <= file.samplerate <= high:
            raise RiffError(f"it claims {file.samplerate} samples per second; {low} to {high} can be read")
        if not 1 <= file.channels <= MAX_CHANNELS:
            raise RiffError(f"it claims {file.channels} channels; 1 to {MAX_CHANNELS} can be read")
        if file.frames == 0:
            raise RiffError("it holds no sound (0 samples)")
        self.seconds = None if file.frames > _UNKNOWN else file.frames / file.samplerate

    def _check_size(self) -> None:
        """Note a WAV or AIFF file that is shorter than its header says, of which libsndfile reads what is there."""
        with open(self.path, "rb") as file:
            head = file.read(8)
            there = file.seek(0, os.SEEK_END)
        if head[:4] in (b"RIFF", b"FORM"):
            claimed = 8 + struct.unpack("<I" if head[:4] == b"RIFF" else ">I", head[4:])[0]
            # The largest number is written where a length is not known yet: by a recorder, or into a pipe.
            if 1.01 * there < claimed < 0xFFFFFF00:
                self.faults.append(f"cut off: {there} of {claimed} bytes are there")

    def _resampled(self, file: soundfile.SoundFile) -> Iterator[Tensor]:
        import soxr

        converter = None
        if file.samplerate != self.sample_rate:
            converter = soxr.ResampleStream(
                file.samplerate, self.sample_rate, self.channels, dtype="float32", quality="VHQ"
            )
        for samples in self._read(file):
            if converter is not None:
                samples = converter.resample_chunk(samples)
            if len(samples):
                yield torch.from_numpy(np.ascontiguousarray(samples.T))
        if converter is not None:
            rest = converter.resample_chunk(np.zeros((0, self.channels), dtype=np.float32), last=True)
            if len(rest):
                yield torch.from_numpy(np.ascontiguousarray(rest.T))

    def _read(self, file: soundfile.SoundFile) -> Iterator[np.ndarray]:
        done = 0
        while True:
            try:
                samples = file.read(_CHUNK, dtype="float32", always_2d=True)
            except soundfile.SoundFileError as error:
                if not done:
                    raise
                reason = getattr(error, "error_string", str(error)).removeprefix("Error : ").strip().rstrip(".")
                self.faults.append(f"damaged after {done / file.samplerate:.1f} s ({reason})")
                return
            if len(samples):
                yield self._mended(self._mixed(samples), done / file.samplerate, file.samplerate)
            done += len(samples)
            if len(samples) < _CHUNK:
                break
        if done == 0:
            raise RiffError("it holds no sound (0 samples)")
        if self.seconds is not None and done < 0.99 * file.frames:
            self.faults.append(f"damaged: {done} of {file.frames} samples could be read")

    def _mixed(self, samples: np.ndarray) -> np.ndarray:
        if self.channels == 1:
            return samples.mean(axis=1, keepdims=True)
        return samples[:, :2] if samples.shape[1] > 1 else samples.repeat(2, axis=1)

    def _mended(self, samples: np.ndarray, start: float, rate: int) -> np.ndarray:
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


def blocks(stream: Stream, *, seconds: float) -> Iterator[tuple[Tensor, bool]]:
    """Gather a stream into blocks about equally long.

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
