"""What the model does for each kind of request: from a checked request to a file's bytes."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riff.checks import BPM_RANGE
from riff.drawing import Wish, draw_clips
from riff.errors import RiffError
from riff.model import Sampling
from riff.music import canonical_keyscale, parse_bpm
from riff.plan import Plan, make_plan
from riff.request import check_negative, check_prompts, clip_seeds
from riff.server.jobs import Job, Result, step_counter
from riff.server.metrics import Metrics
from riff.server.settings import Settings
from riff.timeline import Timeline
from riff.weighting import plain_prompt

if TYPE_CHECKING:
    from riff.clip import Clip
    from riff.pipeline import RiffPipeline

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


class Works:
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
        """Prompts of one group, drawn side by side; what is wrong with one of them is its own fault."""
        outcomes: dict[str, Outcome] = {}
        plans: list[tuple[Job, Plan]] = []
        for job in jobs:
            try:
                plans.append((job, self._plan(pipe, job.request)))
            except RiffError as error:
                outcomes[job.id] = error
        if len(jobs) == 1 and plans:
            outcomes[jobs[0].id] = self._alone(pipe, jobs)
        elif plans:
            asked = plans[0][0].request
            clips = draw_clips(pipe.model, [plan for _, plan in plans], self._wish(pipe, asked, jobs))
            for (job, _), clip in zip(plans, clips, strict=True):
                outcomes[job.id] = clip_result(clip, job.request.format)
        return [outcomes[job.id] for job in jobs]

    def _alone(self, pipe: "RiffPipeline", jobs: Sequence[Job]) -> Result:
        """One prompt, by the call that a user would make."""
        asked = jobs[0].request
        names = (
            *("negative_prompt", "bpm", "bars", "duration", "keyscale", "key_tries"),
            *("timesignature", "loop", "seed"),
        )
        options = {name: getattr(asked, name) for name in names}
        return clip_result(pipe(asked.prompt, **options, **self._common(jobs)).clips[0], asked.format)

    def _plan(self, pipe: "RiffPipeline", asked: Any) -> Plan:
        check_prompts(asked.prompt)
        stated = parse_bpm(plain_prompt(asked.prompt))
        if asked.bpm is None and stated is not None and not BPM_RANGE[0] <= stated <= BPM_RANGE[1]:
            raise RiffError(f"the prompt's tempo is {stated:g} bpm; use {BPM_RANGE[0]:g} to {BPM_RANGE[1]:g}")
        if asked.bars is not None and asked.duration is not None:
            raise RiffError(f"bars is {asked.bars} and duration {asked.duration:g}; give one of them")
        plan = make_plan(
            asked.prompt,
            seed=clip_seeds(1, asked.seed, None)[0],
            bpm=asked.bpm,
            bars=asked.bars,
            duration=asked.duration,
            keyscale=None if asked.keyscale is None else canonical_keyscale(asked.keyscale),
            parts=pipe.pipeline,
            config=pipe.config,
            prior=pipe.prior,
            loop=asked.loop,
            timesignature=asked.timesignature,
        )
        seconds = plan.samples / pipe.config.sample_rate
        if seconds > self.settings.max_seconds:
            raise RiffError(f"this would last {seconds:.1f} s; this server allows up to {self.settings.max_seconds:g}")
        return plan

    def _wish(self, pipe: "RiffPipeline", asked: Any, jobs: Sequence[Job]) -> Wish:
        """What a group has in common; as RiffPipeline's own call has it."""
        guidance = pipe.model.default_guidance if asked.guidance_scale is None else asked.guidance_scale
        keyscale = None if asked.keyscale is None else canonical_keyscale(asked.keyscale)
        if asked.key_tries and keyscale is None:
            raise RiffError(f"key_tries is {asked.key_tries} without a keyscale; say which key to look for")
        settings = pipe.model.settings(asked.num_inference_steps, guidance, asked.quality) | {
            "negative_prompt": asked.negative_prompt,
            "bpm_asked": asked.bpm,
            "keyscale": keyscale,
            "key_tries": asked.key_tries or None,
            "timesignature": asked.timesignature,
            "bars": asked.bars,
            "duration": asked.duration,
            "loop": asked.loop or None,
        }
        sampling = Sampling(asked.num_inference_steps, self.counter(jobs))
        negative = check_negative(asked.negative_prompt)
        return Wish(negative, guidance, sampling, asked.quality, keyscale, asked.key_tries, settings)

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
            keyscale=asked.keyscale,
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
