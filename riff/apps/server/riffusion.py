"""Riffusion's own contract, ``POST /run_inference``, so that its web app works against riff unchanged.

The app stalls for ever on a reply that is not JSON or not a success, so what it can send by accident (null for NaN, an
alpha a little above 1, an endless or empty prompt, a number out of range) is mended rather than refused.
"""

import base64
import dataclasses
import functools
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from riff.apps.server.handlers import MEDIA_TYPES, Handlers, file_bytes
from riff.apps.server.jobs import ModelJob, Result
from riff.apps.server.settings import ApiError, Settings
from riff.diffusion.model import RIFFUSION_GUIDANCE
from riff.prompt.syntax import parse_prompt, parse_weights
from riff.spectrogram.codec import SpectrogramCodec
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import image_to_pil
from riff.spectrogram.inversion.stft import fourier_resample
from riff.spectrogram.png import read_png
from riff.tasks.interpolate import interpolate
from riff.tasks.requests import InterpolateRequest, RenderRequest
from riff.utils.errors import RiffError
from riff.utils.schema import describe_fields

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline
    from riff.tasks.clip import Clip

BEATS = 8
BPM = 93.75  # at which eight beats fill Riffusion's 512 columns of 10 ms
SEEDS = ("og_beat", "agile", "marim", "motorway", "vibes")
_FOLDER = Path(__file__).parent / "seeds"
_HIGHEST: dict[str, Any] = {field.name: field.high for field in describe_fields(RenderRequest)}


@dataclasses.dataclass(frozen=True)
class InferenceCall:
    """One request: its guidance on Riffusion's scale, its image and mask by name, and whether Baseten wrapped it."""

    request: InterpolateRequest
    image: str
    mask: str | None
    wrapped: bool


def read_inference(body: bytes, settings: Settings) -> InferenceCall:
    """The request in a body, mended where it can be; else 400."""
    try:
        fields = json.loads(body.decode("utf-8"), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not valid JSON; send one object with start, end and alpha") from None
    wrapped = isinstance(fields, dict) and isinstance(fields.get("worklet_input"), dict)
    fields = fields["worklet_input"] if wrapped else fields
    if not isinstance(fields, dict):
        raise ApiError(400, "the body is not a JSON object; send one with start, end and alpha")
    if missing := [name for name in ("start", "end", "alpha") if name not in fields]:
        raise ApiError(400, f"{missing[0]} is missing")
    ends = [_end(name, fields[name], settings) for name in ("start", "end")]
    prompts, seeds, negative, strength, guidance = (list(each) for each in zip(*ends, strict=True))
    request = InterpolateRequest(
        prompts=prompts,
        alpha=_number(fields, "alpha", 0.0, 1.0, default=0.0),
        seeds=seeds,
        strength=strength,
        negative_prompt=negative[0] or None,
        guidance_scale=guidance,
        loop=True,
        num_inference_steps=int(_number(fields, "num_inference_steps", 1, settings.max_steps, default=50)),
    )
    image = _name(fields, "seed_image_id", SEEDS) or SEEDS[0]
    return InferenceCall(request, image, _name(fields, "mask_image_id", MASKS), wrapped)


def _end(name: str, fields: Any, settings: Settings) -> tuple[str, int, str, float, float]:
    """One end's prompt, seed, negative prompt, denoising and guidance."""
    if not isinstance(fields, dict):
        raise ApiError(400, f"{name} is not an object; send its prompt and seed")
    for field in ("prompt", "seed"):
        if field not in fields:
            raise ApiError(400, f"{name}.{field} is missing")
    return (
        _text(f"{name}.prompt", fields["prompt"], settings.max_prompt) or "music",
        _seed(fields["seed"], name),
        _text(f"{name}.negative_prompt", fields.get("negative_prompt"), settings.max_prompt),
        _number(fields, "denoising", 0.0, 1.0, default=0.75),
        _number(fields, "guidance", 0.0, _HIGHEST["guidance_scale"], default=RIFFUSION_GUIDANCE),
    )


def _text(name: str, value: Any, longest: int) -> str:
    """Text without half surrogate pairs, cut to what is allowed, its brackets removed if they are out of order."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ApiError(400, f"{name} is not text")
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
        raise ApiError(400, f"{name}.seed is not a number")
    return int(value) % (_HIGHEST["seed"] + 1)


def _number(fields: dict[str, Any], name: str, low: float, high: float, *, default: float) -> float:
    """A number brought into its range; null, which the app sends for NaN, is the default."""
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ApiError(400, f"{name} is not a number")
    return float(min(max(value, low), high)) if not isinstance(value, float) or math.isfinite(value) else default


def _name(fields: dict[str, Any], field: str, known: Any) -> str | None:
    """One of our ids: looked up in a table, never in a folder. Null and the empty text are None."""
    value = fields.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or value not in known:
        raise ApiError(400, f"there is no such {field}; use one of {', '.join(known)}")
    return value


def own_guidance(guidance: float, usual: float) -> float:
    """Guidance on Riffusion's scale, where 7 is usual, on that of a model whose usual one is ``usual``."""
    if guidance <= 1.0:
        return guidance
    return 1.0 + (guidance - 1.0) * (usual - 1.0) / (RIFFUSION_GUIDANCE - 1.0)


def run_inference(handlers: Handlers, pipe: "RiffPipeline", jobs: Sequence[ModelJob]) -> list[Result | Exception]:
    """One interpolation; every clip of a model is exactly as long as the others, to the sample."""
    call: InferenceCall = jobs[0].request
    config, usual = pipe.config, pipe.model.default_guidance
    scales: Any = call.request.guidance_scale
    request = dataclasses.replace(
        call.request,
        guidance_scale=[own_guidance(each, usual) for each in scales],
        # On the seconds grid the image has a length of its own, and Riffusion's models were not trained on a tempo.
        bpm=seed_tempo(config) if config.grid == "beats" else None,
    )
    mask = None if call.mask is None else seed_mask(call.mask, config)
    image = seed_image(call.image, config)
    clip = interpolate(pipe.model, request, image, mask=mask, callback=handlers.counter(jobs))
    reply = _reply(clip)
    content = json.dumps({"output": reply} if call.wrapped else reply).encode()
    return [Result(content, MEDIA_TYPES["json"])]


def _reply(clip: "Clip") -> dict[str, Any]:
    image = io.BytesIO()
    image_to_pil(clip.image, clip.config).convert("RGB").save(image, format="JPEG", quality=95, subsampling=0)
    # WAV, because the padding of MP3 would make a loop of it stumble.
    sound = file_bytes(clip.save, "wav")
    return {
        "image": _url("image/jpeg", image.getvalue()),
        "audio": _url("audio/wav", sound),
        "duration_s": clip.duration,
    }


def _url(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def seed_tempo(config: SpectrogramConfig) -> float:
    """Beats per minute at which a seed fills a training image."""
    if config.grid == "beats":
        return BPM
    return BEATS * 60.0 * config.sample_rate / (config.width * config.hop_length)


@functools.lru_cache(maxsize=32)
def seed_image(name: str, config: SpectrogramConfig) -> Tensor:
    """``(C, M, N)`` in [0, 1]: one of :data:`SEEDS` as an image of ``config``'s kind, N its training width.

    The files are two bars of music, composed note by note for riff, as images of riff-mini's kind. For models of other
    kinds they are played, and encoded as those models' images are.
    """
    image, own, made = read_png(_FOLDER / f"{name}.png")
    if own == config:
        return image
    bpm = seed_tempo(config)
    loop = SpectrogramCodec(own).decode(image, bpm=made["bpm"], loop=True)
    sound = fourier_resample(loop, config.frames_to_samples(config.width, bpm=bpm))
    # Encoded in the middle of three, so that its end leads back into its start.
    thrice = sound.repeat(config.channels, 3)
    encoded = SpectrogramCodec(config).encode(thrice, bpm=bpm if config.grid == "beats" else None).image
    return encoded[..., config.width : 2 * config.width].clone()


def seed_mask(name: str, config: SpectrogramConfig) -> Tensor:
    """``(M, N)``: 1 is resampled, 0 stays. Soft, as the web app's are, which keep up to a third of the top."""
    rows = torch.linspace(0.0, 1.0, config.n_mels)[:, None].expand(-1, config.width)  # 0 is the top
    return 1.0 - MASKS[name](rows)


def _beat_lines(rows: Tensor) -> Tensor:
    place = torch.arange(rows.shape[1]) * BEATS / rows.shape[1]
    return (0.2 * ((place + 0.125) % 1.0 < 0.25).float()).expand_as(rows)


# How much is kept, by a name that says what its image shows.
MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "mask_beat_lines_80": _beat_lines,
    "mask_gradient_dark": lambda rows: 0.87 * (1.0 - rows),
    "mask_gradient_top_70": lambda rows: 0.3 * (1.0 - rows),
    "mask_gradient_top_fifth_75": lambda rows: 0.25 * (1.0 - 5.0 * rows).clamp(min=0.0),
    "mask_top_third_75": lambda rows: 0.25 * (rows < 1 / 3).float(),
    "mask_top_third_95": lambda rows: 0.05 * (rows < 1 / 3).float(),
}
