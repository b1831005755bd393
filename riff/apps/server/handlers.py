"""What the model does for each kind of request: from a checked request to a file's bytes."""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from riff.apps.server.queue import Job, Result, step_counter
from riff.apps.server.settings import Metrics, Settings
from riff.apps.server.uploads import Picture, Sound
from riff.audio.io import resample, save_audio
from riff.diffusion.latents import seeded_generator
from riff.spectrogram.codec import Encoded, SpectrogramCodec
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.png import write_png
from riff.tasks import requests
from riff.tasks.text_to_music import ClipPlan, generate_clips, make_plan
from riff.tasks.timeline import Timeline
from riff.utils.errors import RiffError

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline
    from riff.tasks.clip import Clip

MEDIA_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "mp3": "audio/mpeg",
    "png": "image/png",
    "json": "application/json",
}
Outcome = Result | Exception


def file_bytes(save: Callable[[Path], Any], suffix: str) -> bytes:
    """What ``save`` writes to a file, whose name is ours and which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="riff-serve-") as folder:
        path = Path(folder) / f"result.{suffix}"
        save(path)
        return path.read_bytes()


def clip_result(clip: "Clip", suffix: str) -> Result:
    """A clip as a file of the asked format."""
    facts = {
        "seed": clip.seed,
        "bpm": clip.bpm,
        "duration_s": round(clip.duration, 6),
        "sample_rate": clip.sample_rate,
        "ignored_words": len(clip.ignored_words),
        "dropped_words": len(clip.dropped_words),
    }
    return Result(file_bytes(clip.save, suffix), MEDIA_TYPES[suffix], facts)


class Handlers:
    """The kinds of work of one server.

    Attributes:
        settings: its limits.
        metrics: where steps are counted.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics

    def counter(self, jobs: Sequence[Job]) -> Any:
        """The callback of a drawing for ``jobs``."""
        return step_counter(jobs, self.metrics.steps.inc)

    def render(self, pipe: "RiffPipeline", jobs: Sequence[Job]) -> list[Outcome]:
        """Prompts of one group, side by side; what is wrong with one of them concerns it alone."""
        outcomes: dict[str, Outcome] = {}
        plans: list[tuple[Job, ClipPlan]] = []
        for job in jobs:
            try:
                plans.append((job, self._plan(pipe, job.request)))
            except RiffError as error:
                outcomes[job.id] = error
        if plans:
            clips = generate_clips(pipe.model, [plan for _, plan in plans], callback=self.counter(jobs))
            for (job, _), clip in zip(plans, clips, strict=True):
                outcomes[job.id] = clip_result(clip, job.request.format)
        return [outcomes[job.id] for job in jobs]

    def _plan(self, pipe: "RiffPipeline", asked: Any) -> ClipPlan:
        fields = asked.model_dump(exclude={"format", "timeline"})
        fields |= {"key": fields.pop("keyscale"), "time_signature": fields.pop("timesignature")}
        plan = make_plan(pipe.model, requests.RenderRequest(**fields))
        seconds = plan.samples / pipe.config.sample_rate
        if seconds > self.settings.max_seconds:
            raise RiffError(f"this would last {seconds:.1f} s; this server allows up to {self.settings.max_seconds:g}")
        return plan

    def timeline(self, pipe: "RiffPipeline", jobs: Sequence[Job]) -> list[Outcome]:
        """Music that changes as a timeline says."""
        (job,) = jobs
        asked = job.request
        clip = pipe.render(Timeline.from_dict(asked.timeline), seed=asked.seed, **self._common(jobs))
        return [clip_result(clip, asked.format)]

    def walk(self, pipe: "RiffPipeline", jobs: Sequence[Job]) -> list[Outcome]:
        """From prompt to prompt."""
        (job,) = jobs
        asked = job.request
        clip = pipe.walk(
            asked.prompts,
            asked.seed if asked.seeds is None else asked.seeds,
            bars_per_step=asked.bars_per_step,
            bars=asked.bars,
            negative_prompt=asked.negative_prompt,
            bpm=asked.bpm,
            key=asked.keyscale,
            easing=asked.easing,
            variation=asked.variation,
            loop=asked.loop,
            **self._common(jobs),
        )
        return [clip_result(clip, asked.format)]

    def _common(self, jobs: Sequence[Job]) -> dict[str, Any]:
        asked = jobs[0].request
        return {
            "num_inference_steps": asked.num_inference_steps,
            "guidance_scale": asked.guidance_scale,
            "quality": asked.quality,
            "callback_on_step_end": self.counter(jobs),
        }


def render_group(asked: Any) -> tuple[Any, ...] | None:
    """Renders with the same of these may be drawn side by side; None is drawn alone."""
    if asked.key_tries:
        return None
    names = (
        *("negative_prompt", "num_inference_steps", "guidance_scale", "quality", "bars", "duration"),
        *("bpm", "keyscale", "timesignature", "loop"),
    )
    return ("render", *(getattr(asked, name) for name in names))


# WAS riff/server/editing.py: What is done with a recording or a picture that was sent: remix, extend, inpaint,
# encode and decode.


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

    def __init__(self, works: Handlers) -> None:
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
            seconds = audio.shape[-1] / options["sample_rate"] + asked.bars * 4 * 60.0 / asked.bpm
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
            *("negative_prompt", "bpm", "downbeat", "seed"),
            *("num_inference_steps", "guidance_scale", "quality"),
        )
        options = {name: getattr(asked, name) for name in names} | {"key": asked.keyscale}
        if asked.bpm is None and known is not None:
            options |= {"bpm": known, "downbeat": 0.0 if asked.downbeat is None else asked.downbeat}
        return asked, audio, {**options, "sample_rate": rate, "callback_on_step_end": self.works.counter(jobs)}

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
            generator=seeded_generator(asked.seed),
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
