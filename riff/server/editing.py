"""What is done with a recording or a picture that was sent: remix, extend, inpaint, encode and decode."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from riff.audio import resample, save_audio
from riff.codec import Encoded, SpectrogramCodec
from riff.config import SpectrogramConfig
from riff.errors import RiffError
from riff.image import write_png
from riff.server.jobs import Job, Result
from riff.server.uploads import Picture, Sound
from riff.server.work import MEDIA_TYPES, Works, clip_result, file_bytes

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline


@dataclasses.dataclass(frozen=True)
class Editing:
    """A request with the file that it is about.

    Attributes:
        asked: the request.
        upload: the file's content.
    """

    asked: Any
    upload: Any


Outcomes = list[Result | Exception]


class Edits:
    """The kinds of work that begin with a file."""

    def __init__(self, works: Works) -> None:
        self.works = works

    def remix(self, pipe: "RiffPipeline", jobs: Sequence[Job]) -> Outcomes:
        """A recording played anew."""
        asked, audio, options = self._opened(jobs)
        clip = pipe.remix(audio, asked.prompt, strength=asked.strength, **options)
        return [clip_result(clip, asked.format)]

    def extend(self, pipe: "RiffPipeline", jobs: Sequence[Job]) -> Outcomes:
        """A recording that goes on."""
        asked, audio, options = self._opened(jobs)
        if asked.bpm is not None:
            seconds = audio.shape[-1] / options["sampling_rate"] + asked.bars * 4 * 60.0 / asked.bpm
            if seconds > self.works.settings.max_seconds:
                raise RiffError(f"this would last {seconds:.0f} s; ask for fewer bars")
        clip = pipe.extend(audio, asked.prompt, bars=asked.bars, **options)
        return [clip_result(clip, asked.format)]

    def inpaint(self, pipe: "RiffPipeline", jobs: Sequence[Job]) -> Outcomes:
        """Parts of a recording replaced."""
        asked, audio, options = self._opened(jobs)
        names = ("mask_start_seconds", "mask_end_seconds", "mask_start_bar", "mask_end_bar", "low_hz", "high_hz")
        where = {name: getattr(asked, name) for name in names}
        clip = pipe.inpaint(audio, asked.prompt, **where, **options)
        return [clip_result(clip, asked.format)]

    def _opened(self, jobs: Sequence[Job]) -> tuple[Any, torch.Tensor, dict[str, Any]]:
        (job,) = jobs
        asked, (audio, rate, known) = job.request.asked, job.request.upload
        names = (
            *("negative_prompt", "bpm", "downbeat", "keyscale", "seed"),
            *("num_inference_steps", "guidance_scale", "quality"),
        )
        options = {name: getattr(asked, name) for name in names}
        if asked.bpm is None and known is not None:
            options |= {"bpm": known, "downbeat": 0.0 if asked.downbeat is None else asked.downbeat}
        return asked, audio, {**options, "sampling_rate": rate, "callback_on_step_end": self.works.counter(jobs)}

    def encode(self, pipe: "RiffPipeline", jobs: Sequence[Job]) -> Outcomes:
        """A recording drawn as a picture."""
        (job,) = jobs
        asked, upload = job.request.asked, job.request.upload
        config = _encoding(asked)
        sound = _fitted(upload, config)
        encoded = SpectrogramCodec(config).encode(sound, bpm=asked.bpm)
        content = file_bytes(lambda path: write_png(path, encoded.image, config, metadata=encoded.metadata), "png")
        facts = {"columns": encoded.image.shape[-1], "duration_s": sound.shape[-1] / config.sample_rate}
        return [Result(content, MEDIA_TYPES["png"], facts)]

    def decode(self, pipe: "RiffPipeline", jobs: Sequence[Job]) -> Outcomes:
        """A picture played."""
        (job,) = jobs
        asked, upload = job.request.asked, job.request.upload
        image, config, made = _as_preset(upload, asked.preset)
        found = Encoded.read(image, config, made, bpm=asked.bpm)
        if config.grid == "beats" and found.bpm is None:
            raise RiffError("the picture lies on the beats grid and does not say its tempo; send bpm")
        seconds = config.frames_to_samples(image.shape[-1], bpm=found.bpm) / config.sample_rate
        if seconds > self.works.settings.max_seconds:
            raise RiffError(f"this would last {seconds:.0f} s; send a shorter picture")
        waveform = SpectrogramCodec(config).decode(
            image,
            bpm=found.bpm,
            max_value=found.max_value,
            quality=asked.quality,
            loop=asked.loop,
            generator=torch.Generator().manual_seed(asked.seed),
        )
        content = file_bytes(lambda path: save_audio(path, waveform, config.sample_rate), asked.format)
        facts = {"duration_s": waveform.shape[-1] / config.sample_rate, "sample_rate": config.sample_rate}
        return [Result(content, MEDIA_TYPES[asked.format], facts)]


def _encoding(asked: Any) -> SpectrogramConfig:
    if asked.preset == "riffusion":
        if asked.bpm is not None:
            raise RiffError("bpm has no place in Riffusion's pictures, whose columns are 10 ms; leave out one of them")
        return SpectrogramConfig.riffusion(stereo=asked.stereo)
    own = SpectrogramConfig(channels=2 if asked.stereo else 1)
    return own if asked.bpm is not None else dataclasses.replace(own, grid="seconds")


def _fitted(upload: Sound, config: SpectrogramConfig) -> torch.Tensor:
    """The recording at the picture's rate and in its channels."""
    waveform, rate, _ = upload
    if len(waveform) != config.channels:
        waveform = waveform.mean(0, keepdim=True).expand(config.channels, -1)
    return resample(waveform.contiguous(), rate, config.sample_rate).clamp(-1.0, 1.0)


def _as_preset(upload: Picture, preset: str | None) -> Picture:
    image, config, made = upload
    if preset is None:
        return upload
    own = SpectrogramConfig.riffusion(stereo=config.channels == 2) if preset == "riffusion" else SpectrogramConfig()
    return image, dataclasses.replace(own, n_mels=config.n_mels, channels=config.channels), made
