"""What the model does for each kind of request: from a checked request to a file's bytes."""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from riff.apps.server.jobs import ModelJob, Result, step_counter
from riff.apps.server.schemas import Call, EncodeRequest
from riff.apps.server.settings import Metrics, Settings
from riff.apps.server.uploads import Image, UploadedSound
from riff.audio.io import resample, save_audio
from riff.diffusion.latents import seeded_generator
from riff.diffusion.model import DiffusionModel
from riff.spectrogram.codec import Encoded, SpectrogramCodec
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.png import write_png
from riff.tasks.requests import ExtendRequest, RenderRequest
from riff.tasks.run import run
from riff.tasks.text_to_music import ClipPlan, generate_clips, make_plan
from riff.utils.errors import RiffError

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline
    from riff.tasks.clip import Clip

SOUNDS = {"wav": "audio/wav", "flac": "audio/flac", "ogg": "audio/ogg", "mp3": "audio/mpeg"}
MEDIA_TYPES = {**SOUNDS, "png": "image/png", "json": "application/json"}
Outcome = Result | Exception


def file_bytes(save: Callable[[Path], Any], suffix: str) -> bytes:
    """What ``save`` writes to a file, whose name is the server's and which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="riff-serve-") as folder:
        path = Path(folder) / f"result.{suffix}"
        save(path)
        return path.read_bytes()


def clip_result(clip: "Clip", suffix: str) -> Result:
    """A clip as a file of the requested format."""
    facts = {
        "seed": clip.seed,
        "bpm": clip.bpm,
        "duration_s": round(clip.duration, 6),
        "sample_rate": clip.sample_rate,
        "ignored_words": len(clip.ignored_words),
        "dropped_words": len(clip.dropped_words),
    }
    return Result(file_bytes(clip.save, suffix), MEDIA_TYPES[suffix], facts)


def with_faults(result: Result, sound: UploadedSound) -> Result:
    """A result that says what was wrong with the recording it was made of, so that nothing is lost silently."""
    return dataclasses.replace(result, facts=result.facts | {"faults": sound.faults}) if sound.faults else result


class Handlers:
    """The kinds of work of one server. A job's request is a :class:`riff.apps.server.schemas.Call`."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics

    def counter(self, jobs: Sequence[ModelJob]) -> Any:
        """The pipeline's callback for ``jobs``."""
        return step_counter(jobs, self.metrics.steps.inc)

    def render(self, pipe: "RiffPipeline", jobs: Sequence[ModelJob]) -> list[Outcome]:
        """Prompts of one group, generated side by side; what is wrong with one of them does not touch the others."""
        outcomes: dict[str, Outcome] = {}
        plans: dict[str, ClipPlan] = {}
        for job in jobs:
            try:
                plans[job.id] = self._plan(pipe.model, job.request.request)
            except RiffError as error:
                outcomes[job.id] = error
        planned = [job for job in jobs if job.id in plans]
        if planned:
            clips = generate_clips(pipe.model, list(plans.values()), callback=self.counter(planned))
            for job, clip in zip(planned, clips, strict=True):
                outcomes[job.id] = clip_result(clip, job.request.reply.format)
        return [outcomes[job.id] for job in jobs]

    def _plan(self, model: DiffusionModel, request: RenderRequest) -> ClipPlan:
        plan = make_plan(model, request)
        self._check_length(plan.samples / model.config.sample_rate)
        return plan

    def _check_length(self, seconds: float) -> None:
        if seconds > self.settings.max_seconds:
            allowed = self.settings.max_seconds
            raise RiffError(f"this would last {seconds:.1f} s; this server allows up to {allowed:g} s")

    def generate(self, pipe: "RiffPipeline", jobs: Sequence[ModelJob]) -> list[Outcome]:
        """A timeline or a walk."""
        call: Call = jobs[0].request
        clip = run(pipe.model, call.request, callback=self.counter(jobs))
        return [clip_result(clip, call.reply.format)]

    def edit(self, pipe: "RiffPipeline", jobs: Sequence[ModelJob]) -> list[Outcome]:
        """A recording remixed, extended or inpainted."""
        call: Call = jobs[0].request
        request, sound = call.request, call.upload
        if request.bpm is None and sound.bpm is not None:
            request = dataclasses.replace(request, bpm=sound.bpm, downbeat=request.downbeat or 0.0)
        if isinstance(request, ExtendRequest) and request.bpm is not None:
            self._check_length(sound.waveform.shape[-1] / sound.sample_rate + request.bars * 4 * 60.0 / request.bpm)
        counter = self.counter(jobs)
        clip = run(pipe.model, request, sound.waveform, sample_rate=sound.sample_rate, callback=counter)
        return [with_faults(clip_result(clip, call.reply.format), sound)]

    def encode(self, pipe: "RiffPipeline", jobs: Sequence[ModelJob]) -> list[Outcome]:
        """The spectrogram image of a recording."""
        call: Call = jobs[0].request
        config = _encoding(call.request)
        sound = _fitted(call.upload, config)
        encoded = SpectrogramCodec(config).encode(sound, bpm=call.request.bpm)
        content = file_bytes(lambda path: write_png(path, encoded.image, config, metadata=encoded.metadata), "png")
        facts = {"columns": encoded.image.shape[-1], "duration_s": sound.shape[-1] / config.sample_rate}
        return [with_faults(Result(content, MEDIA_TYPES["png"], facts), call.upload)]

    def decode(self, pipe: "RiffPipeline", jobs: Sequence[ModelJob]) -> list[Outcome]:
        """The sound of a spectrogram image."""
        call: Call = jobs[0].request
        request, suffix = call.request, call.reply.format
        image, config, made = _as_preset(call.upload, request.preset)
        found = Encoded.read(image, config, made, bpm=request.bpm)
        if config.grid == "beats" and found.bpm is None:
            raise RiffError("the image is on the beats grid and does not say its tempo; send bpm")
        self._check_length(config.frames_to_samples(image.shape[-1], bpm=found.bpm) / config.sample_rate)
        waveform = SpectrogramCodec(config).decode(
            image,
            bpm=found.bpm,
            max_value=found.max_value,
            quality=request.quality,
            loop=request.loop,
            generator=seeded_generator(request.seed),
        )
        content = file_bytes(lambda path: save_audio(path, waveform, config.sample_rate), suffix)
        facts = {"duration_s": waveform.shape[-1] / config.sample_rate, "sample_rate": config.sample_rate}
        return [Result(content, MEDIA_TYPES[suffix], facts)]


def render_group(request: RenderRequest) -> tuple[Any, ...] | None:
    """Renders that agree in these may be generated side by side; None is generated alone."""
    if request.key_tries:
        return None
    return ("render", *(value for name, value in vars(request).items() if name not in ("prompt", "seed")))


def _encoding(request: EncodeRequest) -> SpectrogramConfig:
    if request.preset == "riffusion":
        if request.bpm is not None:
            raise RiffError("bpm does not apply to Riffusion's images, whose columns are 10 ms; leave out one of them")
        return SpectrogramConfig.riffusion(stereo=request.stereo)
    own = SpectrogramConfig(channels=2 if request.stereo else 1)
    return own if request.bpm is not None else dataclasses.replace(own, grid="seconds")


def _fitted(upload: UploadedSound, config: SpectrogramConfig) -> torch.Tensor:
    """The recording at the image's rate and in its channels."""
    waveform = upload.waveform
    if len(waveform) != config.channels:
        waveform = waveform.mean(0, keepdim=True).expand(config.channels, -1)
    return resample(waveform.contiguous(), upload.sample_rate, config.sample_rate).clamp(-1.0, 1.0)


def _as_preset(upload: Image, preset: str | None) -> Image:
    image, config, made = upload
    if preset is None:
        return upload
    own = SpectrogramConfig.riffusion(stereo=config.channels == 2) if preset == "riffusion" else SpectrogramConfig()
    return image, dataclasses.replace(own, n_mels=config.n_mels, channels=config.channels), made
