"""What a call that works on a recording was given, checked and brought into one form."""

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
from riff.diffusion.model import DenoiseOptions, DiffusionModel
from riff.music.alignment import AlignedAudio, Recording, align_to_grid, to_model_channels
from riff.music.theory import canonical_key
from riff.prompt.interpret import interpret_prompt
from riff.spectrogram.image import mel_to_image
from riff.spectrogram.inversion.solver import Quality
from riff.spectrogram.mel import waveform_to_mel
from riff.tasks.checks import Request, check_negative, check_prompts, check_sampling, clip_seeds
from riff.tasks.clip import Clip
from riff.tasks.provenance import read_sound_tags
from riff.utils.errors import RiffError
from riff.utils.validation import BPM_RANGE, check_number

Audio = str | Path | Clip | Tensor | np.ndarray
Bounds = float | list[float] | None


@dataclasses.dataclass(frozen=True)
class EditContext:
    """A recording, where its beats are, and what to draw.

    Attributes:
        recording: as it came.
        laid: the same on the grid.
        request: what to draw.
        told: what the clip says of how it was asked for: ``bpm_asked``, ``downbeat``, ``keyscale``, and the hash of
            the recording as ``source``.
    """

    recording: Recording
    laid: AlignedAudio
    request: Request
    told: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self.recording.waveform.shape[-1] / self.recording.sample_rate

    def regions(self, in_seconds: tuple[Bounds, Bounds], in_bars: tuple[Bounds, Bounds]) -> list[tuple[float, float]]:
        """The parts to replace, in seconds, sorted, those that meet joined.

        Raises:
            RiffError: none is given, or one is empty, outside the recording or given in two ways.
        """
        pairs = _pairs(in_seconds, "mask_start_seconds", "mask_end_seconds")
        bars = _pairs(in_bars, "mask_start_bar", "mask_end_bar")
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
        beat = float(self.laid.tempo.beats_at(self.laid.lead / self.laid.rate))
        return math.ceil(beat / self.laid.beats_per_bar - 1e-3)

    @property
    def _bars(self) -> float:
        """Length of the recording from there on."""
        beat = float(self.laid.tempo.beats_at(self.laid.lead / self.laid.rate + self.seconds))
        return beat / self.laid.beats_per_bar - self._first_bar

    def _bar_to_seconds(self, bar: float) -> float:
        """Seconds of the recording; bar 0 is the first one that begins in it."""
        lead = self.laid.lead / self.laid.rate
        seconds = float(self.laid.tempo.seconds_at((self._first_bar + bar) * self.laid.beats_per_bar)) - lead
        # A last bar may end a hair after the recording.
        return min(seconds, self.seconds) if seconds < self.seconds + 0.02 else seconds

    def band(self, low_hz: float | None, high_hz: float | None) -> tuple[float, float] | None:
        """The band to replace, or None for all of it.

        Raises:
            RiffError: it is empty or no band.
        """
        if low_hz is None and high_hz is None:
            return None
        top = self.recording.sample_rate / 2
        low, high = low_hz or 0.0, top if high_hz is None else high_hz
        check_number(low, "low_hz", 0, top)
        check_number(high, "high_hz", 0, top)
        if low >= high:
            raise RiffError(f"low_hz is {low:g} and high_hz {high:g}; use low_hz below high_hz")
        return low, high

    def clip(
        self,
        model: DiffusionModel,
        task: str,
        sound: Tensor,
        sample_rate: int,
        *,
        image: Tensor | None = None,
        told: dict[str, Any],
    ) -> Clip:
        """The result as a clip that says ``told`` of itself; without a picture of its own one is drawn of the sound."""
        request, reading = self.request, self.request.reading
        if image is None:
            image = _picture(model, sound, sample_rate, self.laid)
        settings = model.settings(request.sampling.steps, request.guidance_scale, request.quality) | {
            "negative_prompt": request.negative_prompt or None,
            "ignored_words": reading.ignored_words,
            "dropped_words": reading.dropped_words,
            "beats_per_bar": self.laid.beats_per_bar,
            "beats": self.laid.beats,
            "task": task,
            **self.told,
            **told,
        }
        return Clip(
            waveform=sound,
            sample_rate=sample_rate,
            image=image,
            config=model.config,
            prompt=reading.prompt,
            seed=request.seed,
            bpm=reading.bpm,
            settings=settings,
            tempo=self.laid.tempo,
        )


def open_recording(
    model: DiffusionModel,
    audio: Audio,
    prompt: str,
    *,
    sampling_rate: int | None,
    negative_prompt: str | None,
    bpm: float | None,
    downbeat: float | None,
    keyscale: str | None,
    seed: int | None,
    guidance_scale: float | None,
    quality: Quality,
    sampling: DenoiseOptions,
) -> EditContext:
    """Check a call's arguments, read its recording and lay it on the grid.

    Raises:
        RiffError: an argument is out of its range, or the recording cannot be read.
    """
    check_prompts(prompt)
    check_sampling(bpm, sampling.steps, guidance_scale, 1, quality)
    if downbeat is not None:
        check_number(downbeat, "downbeat", 0, 3600)
    negative = check_negative(negative_prompt)
    key = None if keyscale is None else canonical_key(keyscale)
    recording, known = read_recording(audio, sampling_rate)
    if bpm is None and known is not None:
        bpm, downbeat = known, 0.0 if downbeat is None else downbeat
    source = sound_hash(recording.waveform, recording.sample_rate)
    told = {"bpm_asked": bpm, "downbeat": downbeat, "keyscale": key, "source": source}
    reading = interpret_prompt(prompt, bpm=bpm, keyscale=key, parts=model.components, prior=model.prior)
    laid = align_to_grid(
        recording,
        model.config,
        bpm=bpm,
        downbeat=downbeat,
        beats_per_bar=reading.beats_per_bar,
        fallback_bpm=reading.bpm,
    )
    if bpm is None:  # the recording's tempo, whatever the words say
        bpm = min(max(laid.bpm, BPM_RANGE[0]), BPM_RANGE[1])
        reading = interpret_prompt(prompt, bpm=bpm, keyscale=key, parts=model.components, prior=model.prior)
    guidance = model.default_guidance if guidance_scale is None else guidance_scale
    own_seed = clip_seeds(1, seed, None)[0]
    return EditContext(recording, laid, Request(reading, negative, guidance, own_seed, sampling, quality), told)


def read_recording(audio: Audio, sampling_rate: int | None = None) -> tuple[Recording, float | None]:
    """The recording, and its tempo where riff made it at one tempo from the first sample on."""
    if isinstance(audio, Clip):
        return Recording(audio.waveform, audio.sample_rate), audio.bpm if audio.tempo is None else None
    if isinstance(audio, (np.ndarray, Tensor)):
        if sampling_rate is None:
            raise RiffError("samples were given without their rate; give sampling_rate in Hz")
        return Recording(*check_samples(audio, sampling_rate)), None
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
    return Recording(waveform, rate), None if known is None else _number(known)


def _number(text: str) -> float | None:
    """A tempo from a file's tags, which are anybody's text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if BPM_RANGE[0] <= value <= BPM_RANGE[1] else None


def _pairs(bounds: tuple[Bounds, Bounds], first: str, second: str) -> list[tuple[float, float]]:
    starts, ends = (
        [] if bound is None else list(bound) if isinstance(bound, (list, tuple)) else [bound] for bound in bounds
    )
    if len(starts) != len(ends):
        raise RiffError(f"{first} has {len(starts)} values and {second} {len(ends)}; give as many of each")
    for name, values in ((first, starts), (second, ends)):
        for value in values:
            check_number(value, name, 0, 86400)
    return list(zip(starts, ends, strict=True))


def _picture(model: DiffusionModel, sound: Tensor, sample_rate: int, laid: AlignedAudio) -> Tensor:
    """(C, M, N) of a finished recording, on the grid that it was laid on."""
    fitted = to_model_channels(Recording(sound, sample_rate), model.config)
    padded = torch.nn.functional.pad(fitted, (laid.lead, 0))
    return mel_to_image(waveform_to_mel(padded, model.config, bpm=laid.tempo)[0], model.config)
