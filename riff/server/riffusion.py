"""Riffusion's own contract, ``POST /run_inference``, so that its web app works against riff unchanged.

The app stalls for ever on a reply that is no JSON or no success, so what it can send by accident (null for NaN, an
alpha a little above 1, an endless or empty prompt, a number out of range) is mended rather than refused.
"""

import base64
import dataclasses
import functools
import io
import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from riff.checks import MAX_SEED
from riff.config import SpectrogramConfig
from riff.errors import RiffError
from riff.image import image_to_pil
from riff.model import RIFFUSION_GUIDANCE
from riff.server.faults import Refusal
from riff.server.jobs import Job, Result
from riff.server.seeds import MASKS, SCORES, seed_mask, seed_picture, seed_tempo
from riff.server.settings import Settings
from riff.server.work import MEDIA_TYPES, Works, file_bytes
from riff.weighting import parse_prompt, parse_weights

if TYPE_CHECKING:
    from riff.clip import Clip
    from riff.pipeline import RiffPipeline


@dataclasses.dataclass(frozen=True)
class PromptInput:
    """One end, as Riffusion's datatypes have it."""

    prompt: str
    seed: int
    negative_prompt: str
    denoising: float
    guidance: float


@dataclasses.dataclass(frozen=True)
class InferenceInput:
    """One request."""

    start: PromptInput
    end: PromptInput
    alpha: float
    num_inference_steps: int
    seed_image_id: str
    mask_image_id: str | None
    wrapped: bool = False


def read_inference(body: bytes, settings: Settings) -> InferenceInput:
    """The request in a body, mended where it can be.

    Raises:
        Refusal: 400, it is no JSON object, lacks a field, or names a picture that there is not.
    """
    try:
        fields = json.loads(body.decode("utf-8"), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is no valid JSON; send one object with start, end and alpha") from None
    wrapped = isinstance(fields, dict) and isinstance(fields.get("worklet_input"), dict)
    fields = fields["worklet_input"] if wrapped else fields
    if not isinstance(fields, dict):
        raise Refusal(400, "the body is no JSON object; send one with start, end and alpha")
    if missing := [name for name in ("start", "end", "alpha") if name not in fields]:
        raise Refusal(400, f"{missing[0]} is missing")
    return InferenceInput(
        start=_end("start", fields["start"], settings),
        end=_end("end", fields["end"], settings),
        alpha=_number(fields, "alpha", 0.0, 1.0, default=0.0),
        num_inference_steps=int(_number(fields, "num_inference_steps", 1, settings.max_steps, default=50)),
        seed_image_id=_name(fields, "seed_image_id", SCORES) or "og_beat",
        mask_image_id=_name(fields, "mask_image_id", MASKS),
        wrapped=wrapped,
    )


def _end(name: str, fields: Any, settings: Settings) -> PromptInput:
    if not isinstance(fields, dict):
        raise Refusal(400, f"{name} is no object; send its prompt and seed")
    for field in ("prompt", "seed"):
        if field not in fields:
            raise Refusal(400, f"{name}.{field} is missing")
    return PromptInput(
        prompt=_text(f"{name}.prompt", fields["prompt"], settings.max_prompt) or "music",
        seed=_seed(fields["seed"], name),
        negative_prompt=_text(f"{name}.negative_prompt", fields.get("negative_prompt"), settings.max_prompt),
        denoising=_number(fields, "denoising", 0.0, 1.0, default=0.75),
        guidance=_number(fields, "guidance", 0.0, 50.0, default=RIFFUSION_GUIDANCE),
    )


def _text(name: str, value: Any, longest: int) -> str:
    """A text without halves of signs, cut to what is allowed, its brackets made plain if they are out of order."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refusal(400, f"{name} is no text")
    text = value.encode("utf-8", "ignore").decode("utf-8")[:longest].strip()
    read = parse_weights if name.endswith("negative_prompt") else parse_prompt
    try:
        read(text)
    except RiffError:
        text = re.sub(r"[()\[\]\\]", " ", text.replace("AND", "and"))
    return text if re.search(r"\w", text) else ""


def _seed(value: Any, name: str) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Refusal(400, f"{name}.seed is no number")
    return int(value) % (MAX_SEED + 1)


def _number(fields: dict[str, Any], name: str, low: float, high: float, *, default: float) -> float:
    """A number brought into its range; null, which the app sends for NaN, is the default."""
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refusal(400, f"{name} is no number")
    return float(min(max(value, low), high)) if not isinstance(value, float) or math.isfinite(value) else default


def _name(fields: dict[str, Any], field: str, known: Any) -> str | None:
    """An id of ours: looked up in a table, never in a folder. Null and the empty text are none."""
    value = fields.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or value not in known:
        raise Refusal(400, f"there is no such {field}; use one of {', '.join(known)}")
    return value


def own_guidance(guidance: float, usual: float) -> float:
    """Guidance on Riffusion's scale, where 7 is usual, on that of a model whose usual one is ``usual``."""
    if guidance <= 1.0:
        return guidance
    return 1.0 + (guidance - 1.0) * (usual - 1.0) / (RIFFUSION_GUIDANCE - 1.0)


@functools.lru_cache(maxsize=32)
def _picture(name: str, config: SpectrogramConfig) -> Any:
    return seed_picture(name, config)


class Inference:
    """The work of :class:`InferenceInput`."""

    def __init__(self, works: Works) -> None:
        self.works = works

    def run(self, pipe: "RiffPipeline", jobs: Sequence[Job]) -> list[Result | Exception]:
        """One interpolation; every clip of a model is exactly as long as the others, to the sample."""
        (job,) = jobs
        asked: InferenceInput = job.request
        config, usual = pipe.config, pipe.model.default_guidance
        ends = (asked.start, asked.end)
        clip = pipe.interpolate(
            [end.prompt for end in ends],
            asked.alpha,
            _picture(asked.seed_image_id, config),
            seeds=[end.seed for end in ends],
            strength=[end.denoising for end in ends],
            mask=None if asked.mask_image_id is None else seed_mask(asked.mask_image_id, config),
            negative_prompt=asked.start.negative_prompt or None,
            # On the seconds grid the length is the picture's, and Riffusion's models are not told a tempo.
            bpm=seed_tempo(config) if config.grid == "beats" else None,
            guidance_scale=[own_guidance(end.guidance, usual) for end in ends],
            loop=True,
            num_inference_steps=asked.num_inference_steps,
            callback_on_step_end=self.works.counter(jobs),
        )
        reply = _reply(clip)
        content = json.dumps({"output": reply} if asked.wrapped else reply).encode()
        return [Result(content, MEDIA_TYPES["json"])]


def _reply(clip: "Clip") -> dict[str, Any]:
    # WAV, because the padding of MP3 would make a loop of it stumble.
    return {
        "image": _url("image/jpeg", _jpeg(clip)),
        "audio": _url("audio/wav", file_bytes(clip.save, "wav")),
        "duration_s": clip.duration,
    }


def _jpeg(clip: "Clip") -> bytes:
    buffer = io.BytesIO()
    image_to_pil(clip.image, clip.config).convert("RGB").save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _url(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
