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
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from riff.apps.server.handlers import MEDIA_TYPES, Handlers, file_bytes
from riff.apps.server.queue import Job, Result
from riff.apps.server.settings import ApiError, Settings
from riff.diffusion.model import RIFFUSION_GUIDANCE
from riff.prompt.syntax import parse_prompt, parse_weights
from riff.spectrogram.codec import SpectrogramCodec
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import image_to_pil
from riff.utils.errors import RiffError
from riff.utils.validation import MAX_SEED

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline
    from riff.tasks.clip import Clip


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
        raise ApiError(400, "the body is no valid JSON; send one object with start, end and alpha") from None
    wrapped = isinstance(fields, dict) and isinstance(fields.get("worklet_input"), dict)
    fields = fields["worklet_input"] if wrapped else fields
    if not isinstance(fields, dict):
        raise ApiError(400, "the body is no JSON object; send one with start, end and alpha")
    if missing := [name for name in ("start", "end", "alpha") if name not in fields]:
        raise ApiError(400, f"{missing[0]} is missing")
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
        raise ApiError(400, f"{name} is no object; send its prompt and seed")
    for field in ("prompt", "seed"):
        if field not in fields:
            raise ApiError(400, f"{name}.{field} is missing")
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
        raise ApiError(400, f"{name} is no text")
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
        raise ApiError(400, f"{name}.seed is no number")
    return int(value) % (MAX_SEED + 1)


def _number(fields: dict[str, Any], name: str, low: float, high: float, *, default: float) -> float:
    """A number brought into its range; null, which the app sends for NaN, is the default."""
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ApiError(400, f"{name} is no number")
    return float(min(max(value, low), high)) if not isinstance(value, float) or math.isfinite(value) else default


def _name(fields: dict[str, Any], field: str, known: Any) -> str | None:
    """An id of ours: looked up in a table, never in a folder. Null and the empty text are none."""
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


@functools.lru_cache(maxsize=32)
def _picture(name: str, config: SpectrogramConfig) -> Any:
    return seed_picture(name, config)


class Inference:
    """The work of :class:`InferenceInput`."""

    def __init__(self, works: Handlers) -> None:
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


# WAS riff/server/seeds.py: Our own seed pictures and masks, under the names that Riffusion's web app asks for.
#
# The pictures are two bars of simple music, composed here note by note and drawn as the model's pictures are.
# They are
# computed round the end of the loop, so they close to the sample; the same call gives the same picture.

BEATS = 8
BPM = 93.75  # at which eight beats fill Riffusion's 512 columns of 10 ms
_LEVEL_DB = -20.3  # root mean square that riff's own models were trained at
Voice = Callable[[np.ndarray, float], np.ndarray]


def _kick(t: np.ndarray, pitch: float) -> np.ndarray:
    phase = 2 * np.pi * (45.0 * t + 90.0 * 0.03 * (1 - np.exp(-t / 0.03)))
    return np.asarray(np.sin(phase) * np.exp(-t / 0.12))


def _noise(t: np.ndarray) -> np.ndarray:
    return np.random.default_rng(7).standard_normal(len(t))


def _snare(t: np.ndarray, pitch: float) -> np.ndarray:
    return np.asarray(0.4 * _noise(t) * np.exp(-t / 0.07) + 0.5 * np.sin(2 * np.pi * 185 * t) * np.exp(-t / 0.05))


def _hat(t: np.ndarray, pitch: float) -> np.ndarray:
    return np.asarray(0.15 * np.diff(_noise(t), prepend=0.0) * np.exp(-t / 0.025))


def _tone(partials: tuple[tuple[float, float, float], ...]) -> Voice:
    """A struck note of partials (ratio, strength, decay in seconds)."""

    def play(t: np.ndarray, pitch: float) -> np.ndarray:
        parts = [
            strength * np.sin(2 * np.pi * ratio * pitch * t) * np.exp(-t / decay) for ratio, strength, decay in partials
        ]
        return np.asarray(sum(parts) * np.minimum(1.0, t / 0.003))

    return play


_pluck = _tone(tuple((float(n), 0.4 / n, 0.18 / n**0.5) for n in range(1, 9)))
_marimba = _tone(((1.0, 0.5, 0.25), (3.98, 0.2, 0.06), (9.2, 0.08, 0.03)))
_vibes = _tone(((1.0, 0.4, 1.2), (4.0, 0.12, 0.5), (10.0, 0.03, 0.1)))
_bass = _tone(tuple((float(n), 0.5 / n, 0.3) for n in range(1, 13)))
# (sixteenth, voice, MIDI pitch)
Score = list[tuple[int, Voice, int]]


def _hits(places: range | tuple[int, ...], voice: Voice, pitch: int = 60) -> Score:
    return [(place, voice, pitch) for place in places]


def _line(pitches: tuple[int | None, ...], voice: Voice, step: int = 1) -> Score:
    return [(place * step, voice, pitch) for place, pitch in enumerate(pitches) if pitch is not None]


_RUN = (57, 60, 64, 69, 72, 69, 64, 60, 55, 60, 64, 67, 72, 67, 64, 60)
_FALL = (53, 57, 60, 65, 69, 65, 60, 57, 55, 59, 62, 67, 71, 67, 62, 59)
_CHORDS = ((0, (57, 60, 64, 67)), (6, (60, 64)), (8, (53, 57, 60, 64)), (16, (50, 57, 60, 65)), (24, (55, 59, 62, 65)))
SCORES: dict[str, Score] = {
    "og_beat": [
        *_hits((0, 8, 10, 16, 24, 26, 29), _kick),
        *_hits((4, 12, 20, 28), _snare),
        *_hits(range(0, 32, 2), _hat),
    ],
    "agile": [*_line(_RUN + _FALL, _pluck), *_hits((0, 8, 16, 24), _kick), *_hits(range(2, 32, 4), _hat)],
    "marim": [
        *_line((60, None, 67, 72, None, 67, 64, None, 65, None, 69, 72, None, 69, 67, 64) * 2, _marimba),
        *_hits((0, 16), _kick),
    ],
    "motorway": [
        *_line((40, 40, 40, 40, 43, 43, 40, 40, 36, 36, 36, 36, 38, 38, 38, 43), _bass, 2),
        *_hits(range(0, 32, 4), _kick),
        *_hits(range(2, 32, 4), _hat),
        *_hits((4, 12, 20, 28), _snare),
    ],
    "vibes": [
        *((place, _vibes, pitch) for place, pitches in _CHORDS for pitch in pitches),
        *_line((76, None, 74, 72, None, 69, 72, None), _vibes, 4),
    ],
}


def seed_sound(name: str, samples: int, sample_rate: int) -> Tensor:
    """(T,) of one seed: eight beats in ``samples`` samples, whose last notes ring on in the first beats."""
    sound = np.zeros(samples)
    for place, voice, pitch in SCORES[name]:
        t = np.arange(min(samples, 2 * sample_rate)) / sample_rate
        note = voice(t, 440.0 * 2.0 ** ((pitch - 69) / 12))
        start = round(place * samples / (4 * BEATS))
        np.add.at(sound, (start + np.arange(len(note))) % samples, note)
    loudness = math.sqrt(float(np.mean(sound**2)))
    sound *= min(10 ** (_LEVEL_DB / 20) / loudness, 0.97 / float(np.abs(sound).max()))
    return torch.from_numpy(sound.astype(np.float32))


def seed_tempo(config: SpectrogramConfig) -> float:
    """Beats per minute at which a seed fills a training picture."""
    if config.grid == "beats":
        return BPM
    return BEATS * 60.0 * config.sample_rate / (config.width * config.hop_length)


def seed_picture(name: str, config: SpectrogramConfig) -> Tensor:
    """``(C, M, N)`` in [0, 1]: one of :data:`SCORES` as a picture of ``config``'s kind, N its training width."""
    bpm = seed_tempo(config)
    samples = config.frames_to_samples(config.width, bpm=bpm)
    sound = seed_sound(name, samples, config.sample_rate)
    thrice = sound.repeat(config.channels, 3)
    image = SpectrogramCodec(config).encode(thrice, bpm=bpm if config.grid == "beats" else None).image
    return image[..., config.width : 2 * config.width].clone()


def seed_mask(name: str, config: SpectrogramConfig) -> Tensor:
    """``(M, N)``: 1 is drawn anew, 0 stays. Soft, as the web app's are, which keep up to a third of the top."""
    rows = torch.linspace(0.0, 1.0, config.n_mels)[:, None].expand(-1, config.width)  # 0 is the top
    return 1.0 - MASKS[name](rows)


def _beat_lines(rows: Tensor) -> Tensor:
    place = torch.arange(rows.shape[1]) * BEATS / rows.shape[1]
    return (0.2 * ((place + 0.125) % 1.0 < 0.25).float()).expand_as(rows)


# How much is kept, by a name that says what the picture of it shows.
MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "mask_beat_lines_80": _beat_lines,
    "mask_gradient_dark": lambda rows: 0.87 * (1.0 - rows),
    "mask_gradient_top_70": lambda rows: 0.3 * (1.0 - rows),
    "mask_gradient_top_fifth_75": lambda rows: 0.25 * (1.0 - 5.0 * rows).clamp(min=0.0),
    "mask_top_third_75": lambda rows: 0.25 * (rows < 1 / 3).float(),
    "mask_top_third_95": lambda rows: 0.05 * (rows < 1 / 3).float(),
}
