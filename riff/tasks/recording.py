"""A recording that is to be edited: read, aligned with the model's grid, and the clip that comes of it."""

import dataclasses
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riff.audio.channels import mix
from riff.audio.io import check_samples, load_audio, read_metadata
from riff.audio.reader import open_sound
from riff.diffusion.fingerprint import sound_hash
from riff.diffusion.model import DiffusionModel
from riff.music.alignment import AlignedAudio, Recording, align_to_grid, to_model_channels
from riff.prompt.interpret import ParsedPrompt
from riff.spectrogram.image import mel_to_image
from riff.spectrogram.mel import waveform_to_mel
from riff.tasks.clip import Clip
from riff.tasks.provenance import read_sound_tags, recorded
from riff.tasks.requests import EditRequest, InpaintRequest, SampleRate
from riff.tasks.text_to_music import resolve
from riff.utils.errors import RiffError
from riff.utils.schema import FieldError, check_value, describe_fields, parse_text
from riff.utils.validation import BPM_RANGE

Audio = str | Path | Clip | Tensor | np.ndarray


@dataclasses.dataclass(frozen=True)
class EditContext:
    """A recording, where its beats are, and what to make of it.

    Attributes:
        request: with its seed, guidance and the tempo that is known.
        prompt: as the model understands it.
        recording: as it came.
        aligned: the same on the grid.
        source: hash of the recording.
    """

    request: EditRequest
    prompt: ParsedPrompt
    recording: Recording
    aligned: AlignedAudio
    source: str

    @property
    def seed(self) -> int:
        """Of the noise and the phases."""
        assert self.request.seed is not None
        return self.request.seed

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self.recording.waveform.shape[-1] / self.recording.sample_rate

    def regions(self, request: InpaintRequest) -> list[tuple[float, float]]:
        """The parts to replace, in seconds, sorted, those that meet joined.

        Raises:
            RiffError: none is given, or one is empty, outside the recording or given in two ways.
        """
        pairs = _pairs(request, "mask_start_seconds", "mask_end_seconds")
        bars = _pairs(request, "mask_start_bar", "mask_end_bar")
        if bool(pairs) == bool(bars):
            raise RiffError("give the parts to replace either in seconds or in bars, start and end of each")
        for start, end in bars:
            pairs.append((self._bar_to_seconds(start), self._bar_to_seconds(end)))
            if not (start < end and pairs[-1][1] <= self.seconds + 1e-3):
                raise RiffError(
                    f"a part from bar {start:g} to bar {end:g} does not lie in a recording of {self._bars:.4g} bars; "
                    "use 0 <= start < end <= its length"
                )
        merged: list[tuple[float, float]] = []
        for start, end in sorted(pairs):
            if not (0 <= start < end <= self.seconds + 1e-3):
                raise RiffError(
                    f"a part from {start:.4g} s to {end:.4g} s does not lie in a recording of {self.seconds:.4g} s; "
                    "use 0 <= start < end <= its length"
                )
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            else:
                merged.append((start, min(end, self.seconds)))
        return merged

    @property
    def _first_bar(self) -> int:
        """Of the canvas, the first that begins in the recording, which is the recording's bar 0."""
        beat = float(self.aligned.tempo.beats_at(self.aligned.lead / self.aligned.rate))
        return math.ceil(beat / self.aligned.beats_per_bar - 1e-3)

    @property
    def _bars(self) -> float:
        """Length of the recording from there on."""
        beat = float(self.aligned.tempo.beats_at(self.aligned.lead / self.aligned.rate + self.seconds))
        return beat / self.aligned.beats_per_bar - self._first_bar

    def _bar_to_seconds(self, bar: float) -> float:
        """Seconds of the recording; bar 0 is the first one that begins in it."""
        lead = self.aligned.lead / self.aligned.rate
        seconds = float(self.aligned.tempo.seconds_at((self._first_bar + bar) * self.aligned.beats_per_bar)) - lead
        # A last bar may end a hair after the recording.
        return min(seconds, self.seconds) if seconds < self.seconds + 0.02 else seconds

    def band(self, request: InpaintRequest) -> tuple[float, float] | None:
        """The band in Hz to replace, or None for all of it.

        Raises:
            RiffError: it is empty or not in the recording.
        """
        if request.low_hz is None and request.high_hz is None:
            return None
        top = self.recording.sample_rate / 2
        low, high = request.low_hz or 0.0, top if request.high_hz is None else request.high_hz
        for name, value in (("low_hz", low), ("high_hz", high)):
            if value > top:
                raise RiffError(
                    f"{name} is {value:g}; use a number from 0 to {top:g}, half the recording's sample rate"
                )
        if low >= high:
            raise RiffError(f"low_hz is {low:g} and high_hz {high:g}; use low_hz below high_hz")
        return low, high

    def clip(
        self,
        model: DiffusionModel,
        sound: Tensor,
        sample_rate: int,
        *,
        image: Tensor | None = None,
        facts: dict[str, Any],
    ) -> Clip:
        """The result as a clip; without ``image`` that of the sound is computed. Its settings hold ``facts`` too."""
        if image is None:
            image = _image_of(model, sound, sample_rate, self.aligned)
        settings = {
            **model.facts(),
            **recorded(self.request),
            "ignored_words": self.prompt.ignored_words,
            "dropped_words": self.prompt.dropped_words,
            "beats_per_bar": self.aligned.beats_per_bar,
            "beats": self.aligned.beats,
            "source": self.source,
            **facts,
        }
        return Clip(
            waveform=sound,
            sample_rate=sample_rate,
            image=image,
            config=model.config,
            prompt=self.prompt.prompt,
            seed=self.seed,
            bpm=self.prompt.bpm,
            settings=settings,
            tempo=self.aligned.tempo,
        )


def open_recording(
    model: DiffusionModel, request: EditRequest, audio: Audio, *, sample_rate: int | None = None
) -> EditContext:
    """Read a recording and align it with the model's grid.

    Args:
        model: what will generate.
        request: its tempo and downbeat hold; without a tempo the one that riff wrote into the file, else the beats are
            detected.
        audio: a sound file, a clip, or ``(C, T)`` samples.
        sample_rate: of samples.

    Raises:
        RiffError: the recording cannot be read.
    """
    recording, known = read_recording(audio, sample_rate)
    if request.bpm is None and known is not None:
        downbeat = 0.0 if request.downbeat is None else request.downbeat
        request = dataclasses.replace(request, bpm=known, downbeat=downbeat)
    request = resolve(model, request)
    source = sound_hash(recording.waveform, recording.sample_rate)
    prompt = model.interpret(request.prompt, bpm=request.bpm, key=request.key)
    aligned = align_to_grid(
        recording,
        model.config,
        bpm=request.bpm,
        downbeat=request.downbeat,
        beats_per_bar=prompt.beats_per_bar,
        fallback_bpm=prompt.bpm,
    )
    if request.bpm is None:  # the recording's tempo, whatever the words say
        bpm = min(max(aligned.bpm, BPM_RANGE[0]), BPM_RANGE[1])
        prompt = model.interpret(request.prompt, bpm=bpm, key=request.key, seed=request.seed)
    return EditContext(request, prompt, recording, aligned, source)


def read_recording(audio: Audio, sample_rate: int | None = None) -> tuple[Recording, float | None]:
    """The recording, and its tempo where riff made it at one tempo from the first sample on."""
    if isinstance(audio, Clip):
        return Recording(audio.waveform, audio.sample_rate), audio.bpm if audio.tempo is None else None
    if isinstance(audio, (np.ndarray, Tensor)):
        if sample_rate is None:
            raise RiffError("samples were given without their rate; give sample_rate in Hz")
        return Recording(*check_samples(audio, check_value(sample_rate, SampleRate, "sample_rate"))), None
    if not isinstance(audio, (str, Path)):
        raise RiffError(f"audio is a {type(audio).__name__}; use a path, a clip or a tensor of samples")
    waveform, rate = load_audio(audio)
    if len(waveform) > 2:
        with open_sound(audio) as sound:
            layout = sound.layout
        count, kind = (1, "mono") if layout is None else (2, "stereo")
        warnings.warn(f"{audio} has {len(waveform)} channels; they are mixed to {kind} (ITU-R BS.775)", stacklevel=2)
        waveform = mix(waveform, count, layout)
    made = read_sound_tags(read_metadata(audio))
    known = made.get("bpm") if "timeline" not in made and "task" not in made else None
    return Recording(waveform, rate), None if known is None else _tempo(known)


_BPM = next(field for field in describe_fields(EditRequest) if field.name == "bpm")


def _tempo(text: str) -> float | None:
    """A tempo from a file's tags, which are untrusted; None if it is invalid."""
    try:
        return parse_text(text, _BPM)
    except FieldError:
        return None


def _pairs(request: InpaintRequest, first: str, second: str) -> list[tuple[float, float]]:
    starts, ends = (
        [] if bound is None else bound if isinstance(bound, list) else [bound]
        for bound in (getattr(request, first), getattr(request, second))
    )
    if len(starts) != len(ends):
        raise RiffError(f"{first} has {len(starts)} values and {second} {len(ends)}; give as many of each")
    return list(zip(starts, ends, strict=True))


def _image_of(model: DiffusionModel, sound: Tensor, sample_rate: int, aligned: AlignedAudio) -> Tensor:
    """(C, M, N) of a finished recording, on the grid that it is aligned with."""
    fitted = to_model_channels(Recording(sound, sample_rate), model.config)
    padded = torch.nn.functional.pad(fitted, (aligned.lead, 0))
    return mel_to_image(waveform_to_mel(padded, model.config, bpm=aligned.tempo)[0], model.config)
