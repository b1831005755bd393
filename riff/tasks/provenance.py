"""How a file was made: written into every sound and image, read back to make it again."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from riff.audio.io import read_metadata
from riff.audio.tags import MACHINE_MADE, MAX_BYTES, SOURCE_TYPE
from riff.diffusion.fingerprint import Adapter
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.png import read_png
from riff.tasks.requests import (
    ExtendRequest,
    Hertz,
    InpaintRequest,
    LoraWeight,
    RemixRequest,
    RenderRequest,
    Sampling,
    Second,
    TimelineRequest,
)
from riff.tasks.stems import recorded_stems
from riff.tasks.timeline import Timeline
from riff.utils.errors import RiffError
from riff.utils.schema import check_value, describe_fields, parse_text
from riff.utils.validation import check_interval, show
from riff.version import __version__

MAX_FIELDS = 64  # of a file's provenance; riff writes half as many
MAX_LORAS = 16
MAX_THREADS = 1024
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
# How files call the fields of a request; other fields have their own names there.
IN_FILES = {
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "bpm": "bpm_asked",
    "key": "keyscale",
    "time_signature": "timesignature",
}
# The clip says these itself, or says where they led to.
_ELSEWHERE = (
    *("prompt", "prompts", "seed", "seeds", "alpha", "low_hz", "high_hz"),
    *("mask_start_seconds", "mask_end_seconds", "mask_start_bar", "mask_end_bar"),
)
# The order that files have had from the first, so that the bytes stay the same; other fields follow.
_ORDER = (
    *("software", "origin", "model", "prompt", "negative_prompt", "seed", "bpm", "keyscale", "bars", "duration"),
    *("steps", "guidance", "guidance_interval", "compiled", "scheduler", "loop", "timeline", "task", "strength"),
    *("timesignature", "key_tries", "key_measured", "key_moved", "model_hash", "loras", "quality", "config", "device"),
    *("dtype", "torch", "bpm_asked", "downbeat", "ends_pinned", "from_latents", "source", "regions", "band"),
    "threads",
)
# Seeds beyond 32 bits are hashed (riff.diffusion.latents.seeded_generator). Files from before that do not say so, and
# torch heeded the lowest 32 bits of their seeds.
SEED_HASH = "blake2b"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9]{1,60}")


def provenance(prompt: str, **facts: Any) -> dict[str, str]:
    """Everything needed to make a clip again, as text.

    Args:
        prompt: as the user wrote it.
        **facts: the clip's seed and tempo, what :func:`recorded` says of its request, what
            :meth:`riff.diffusion.model.DiffusionModel.facts` says of the model, and what the task adds.

    Returns:
        Field name to text, always with ``software`` (``"riff x.y.z"``) and ``origin`` (``"machine-made"``). Fields that
        are None, and an empty negative prompt, are left out. Numbers are written so that they read back exactly.
    """
    facts = {"software": f"riff {__version__}", "origin": MACHINE_MADE, "prompt": prompt, **facts}
    if (facts.get("seed") or 0) >= 2**32:
        facts["seed_hash"] = SEED_HASH
    facts["negative_prompt"] = facts.get("negative_prompt") or None
    places = {name: place for place, name in enumerate(_ORDER)}
    order = sorted(facts, key=lambda name: places.get(name, len(places)))
    return {name: _text(facts[name]) for name in order if facts[name] is not None}


def recorded(request: Sampling) -> dict[str, Any]:
    """What a file says of a request, by the files' names; options that are off are left out."""
    found = {}
    for field in describe_fields(type(request)):
        value = getattr(request, field.name)
        off = value is None or (not value and value == field.default)
        if not off and field.name not in _ELSEWHERE:
            plain = json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value
            found[IN_FILES.get(field.name, field.name)] = plain
    return found


def timeline_text(timeline: Mapping[str, Any]) -> str:
    """A timeline's dict as JSON, with the key spelled ``keyscale`` as in every file that riff wrote."""
    frames = [
        {"keyscale" if name == "key" else name: value for name, value in frame.items()}
        for frame in timeline["keyframes"]
    ]
    return json.dumps({**timeline, "keyframes": frames}, ensure_ascii=False)


def sound_tags(made: Mapping[str, str]) -> dict[str, str]:
    """The texts that carry a provenance in a sound file.

    Args:
        made: what :func:`provenance` returned.

    Returns:
        ``metadata`` for :func:`riff.audio.io.save_audio`: the prompt as the title that players show, the
        software, all of it as JSON in ``comment``, in ASCII since not every player decodes UTF-8, and as
        ``source_type`` IPTC's term for what a trained model made. Of a ``made`` without more than its
        ``origin`` only the last is left.
    """
    title = " ".join("".join(c if c.isprintable() else " " for c in made.get("prompt", "")).split())
    tags = {"title": title[:200], "software": made.get("software", ""), "comment": json.dumps(dict(made))}
    shown = {} if set(made) <= {"origin"} else {field: text for field, text in tags.items() if text}
    return shown | {"source_type": SOURCE_TYPE}


def handed_on(made: Mapping[str, Any], task: str) -> dict[str, str]:
    """The provenance of a file that was converted from another one: what that one says, and the task.

    Args:
        made: the other file's; untrusted.
        task: ``"encode"`` or ``"decode"``.

    Returns:
        Empty where the other was not machine-made. The config is left out, since it describes the other file.
    """
    if made.get("origin") != MACHINE_MADE:
        return {}
    texts = {name: text for name, text in made.items() if isinstance(text, str) and name != "config"}
    return texts | {"task": task} if "software" in texts else {"origin": MACHINE_MADE}


def read_sound_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The inverse of :func:`sound_tags`; empty for a file that riff did not write.

    Args:
        tags: what :func:`riff.audio.io.read_metadata` returned; untrusted.
    """
    comment = tags.get("comment", "")
    if len(comment) > MAX_BYTES:
        return {}
    try:
        made = json.loads(comment)
        if not isinstance(made, dict) or len(made) > MAX_FIELDS:
            return {}
        texts = {str(name): value if isinstance(value, str) else str(value) for name, value in made.items()}
    except (ValueError, RecursionError):
        return {}
    return texts if texts.get("software", "").startswith("riff ") else {}


def _text(value: str | int | float) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to make a file again.

    Attributes:
        path: the file.
        task: "render", "timeline" (a walk is one too), "remix", "extend" or "inpaint".
        request: what was asked for.
        software: what made it, ``"riff x.y.z"``.
        model: name of the checkpoint; untrusted text, which may be a path or a Hub id.
        model_hash: of its files; None where the file does not say, as with the two that follow.
        config: of its image.
        scheduler: class name.
        guidance_interval: shares of the steps between which there was guidance.
        compiled: whether the denoiser was compiled.
        loras: on top of the model, in the order in which they were loaded.
        device: where it was generated.
        dtype: of the weights there.
        torch: version of PyTorch there.
        threads: of a CPU, that it used; None where the file does not say.
        source: hash of the recording that was used; None where there was none.
    """

    path: Path
    task: str
    request: Any
    software: str
    model: str
    model_hash: str | None
    config: SpectrogramConfig | None
    scheduler: str | None
    guidance_interval: tuple[float, float]
    compiled: bool
    loras: tuple[Adapter, ...]
    device: str | None
    dtype: str | None
    torch: str | None
    threads: int | None
    source: str | None


_TASKS: dict[str, type[Sampling]] = {
    "render": RenderRequest,
    "timeline": TimelineRequest,
    "remix": RemixRequest,
    "extend": ExtendRequest,
    "inpaint": InpaintRequest,
}
EDITS = ("remix", "extend", "inpaint")


def read_made(path: str | Path) -> dict[str, Any]:
    """A file's provenance, unchecked.

    Returns:
        Field to value as :func:`provenance` names them; only ``origin`` where just the mark is left; empty where riff
        did not write it.

    Raises:
        RiffError: it is no sound and no image, or damaged.
    """
    if Path(path).suffix.lower() in PICTURES:
        made = read_png(path)[2]
        return made if made.get("origin") == MACHINE_MADE else {}
    tags = read_metadata(path)
    made = read_sound_tags(tags)
    return made or ({"origin": MACHINE_MADE} if tags.get("source_type") == SOURCE_TYPE else {})


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a file that riff wrote.

    Raises:
        RiffError: there is none, it cannot be replayed, or a value in it is damaged or out of its range.
    """
    made = read_made(path)
    if not made:
        raise RiffError(f"{path} does not say that riff made it; give a file that riff wrote, as it wrote it")
    if "software" not in made:
        raise RiffError(f"{path} says that a machine made it but not how; its recipe was left out or removed")
    try:
        return _read(Path(path), made)
    except (RecursionError, OverflowError) as error:
        raise RiffError(f"{path} has a damaged recipe ({type(error).__name__}); it cannot be replayed") from error
    except RiffError as error:
        raise RiffError(f"{path} has a recipe that cannot be replayed: {error}") from error


def _read(path: Path, fields: Mapping[str, Any]) -> Recipe:
    known = {name: value for name, value in fields.items() if name in _ORDER or isinstance(value, str)}
    made = {name: _checked_text(name, value) for name, value in known.items()}
    if made.get("from_latents", "False") != "False":
        raise RiffError("it was made from latents that were given, which no seed makes again")
    if "vocoder" in made:
        raise RiffError("its sound was made by a vocoder that was given, which the file does not hold")
    task = made.get("task", "timeline" if "timeline" in made else "render")
    if task not in _TASKS:
        raise RiffError(f"its task is {show(task)}; {', '.join(_TASKS)} can be made again")
    source = _match(made, "source", _DIGEST)
    if task in EDITS and source is None:
        raise RiffError("it does not say which recording it was made from")
    return Recipe(
        path=path,
        task=task,
        request=_request(_TASKS[task], made),
        software=made["software"],
        model=_model_name(made),
        model_hash=_match(made, "model_hash", _DIGEST),
        config=SpectrogramConfig.from_dict(_json(made, "config")) if "config" in made else None,
        scheduler=_match(made, "scheduler", _NAME),
        guidance_interval=check_interval(_json(made, "guidance_interval") if "guidance_interval" in made else [0, 1]),
        compiled=made.get("compiled") == "True",
        loras=_loras(made),
        device=made.get("device"),
        dtype=_match(made, "dtype", _NAME),
        torch=made.get("torch"),
        threads=_threads(made),
        source=source,
    )


def _request(kind: type[Sampling], made: dict[str, str]) -> Sampling:
    """The request that a file's texts stand for."""
    if "steps" not in made or "seed" not in made:
        raise RiffError("it lacks its steps or its seed")
    values: dict[str, Any] = {}
    for field in describe_fields(kind):
        name = IN_FILES.get(field.name, field.name)
        if name in made and field.name != "stems":
            values[field.name] = parse_text(made[name], dataclasses.replace(field, name=name))
        elif field.required or (name in _NEEDED and kind in (RemixRequest, ExtendRequest)):
            raise RiffError(f"it lacks {name}")
    if kind is RemixRequest:
        values["stems"] = recorded_stems(made)
    if kind is InpaintRequest:
        values |= _places(made)
    is_old = "seed_hash" not in made
    if is_old:
        values["seed"] %= 2**32
    if "timeline" in values:
        _modern_timeline(values["timeline"], lower_seeds=is_old)
        Timeline.from_dict(values["timeline"])
    return kind(**values)


_NEEDED = ("strength", "bars")


def _places(made: dict[str, str]) -> dict[str, Any]:
    """Where a recording was replaced: parts in seconds, and a band."""
    regions = _pairs(_json(made, "regions"), "regions", Second)
    band = _pairs([_json(made, "band")], "band", Hertz)[0] if "band" in made else [None, None]
    return {
        "mask_start_seconds": [start for start, _ in regions],
        "mask_end_seconds": [end for _, end in regions],
        "low_hz": band[0],
        "high_hz": band[1],
    }


def _pairs(rows: Any, name: str, kind: Any) -> list[list[float]]:
    if not isinstance(rows, list) or not 1 <= len(rows) <= 1000:
        raise RiffError(f"{name} is {show(rows)}; use a list of pairs")
    if wrong := [row for row in rows if not isinstance(row, list) or len(row) != 2]:
        raise RiffError(f"{name} holds {show(wrong[0])}; use pairs of numbers")
    return [[check_value(value, kind, name) for value in row] for row in rows]


def _modern_timeline(timeline: Any, *, lower_seeds: bool) -> None:
    """Bring a file's timeline up to date in place; what is malformed is left to :class:`riff.tasks.timeline.Timeline`."""  # noqa: E501
    frames = timeline.get("keyframes")
    for each in [timeline, *(frames if isinstance(frames, list) else [])]:
        if not isinstance(each, dict):
            continue
        if "keyscale" in each:
            each["key"] = each.pop("keyscale")
        if lower_seeds and isinstance(each.get("seed"), int):
            each["seed"] %= 2**32


def _model_name(made: dict[str, str]) -> str:
    name = made.get("model", "")
    if not 0 < len(name) <= 400 or not name.isprintable():
        raise RiffError(f"its model is called {show(name)}, which is no name")
    return name


def _loras(made: dict[str, str]) -> tuple[Adapter, ...]:
    rows = _json(made, "loras") if "loras" in made else []
    if not isinstance(rows, list) or len(rows) > MAX_LORAS:
        raise RiffError(f"loras are {show(rows)}; use a list of at most {MAX_LORAS}")
    found = []
    for row in rows:
        fields = row if isinstance(row, dict) else {}
        name, digest = fields.get("name"), fields.get("digest")
        named = isinstance(name, str) and len(name) <= 400 and name.isprintable()
        if not named or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise RiffError(f"a LoRA is {show(row)}; use its name, digest and weight")
        found.append(Adapter(str(name), digest, check_value(fields.get("weight"), LoraWeight, "the weight of a LoRA")))
    return tuple(found)


def _checked_text(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_BYTES:
        raise RiffError(f"{name} is {show(value)}; use text of at most {MAX_BYTES:,} characters")
    return value


def _threads(made: dict[str, str]) -> int | None:
    text = made.get("threads")
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text) or int(text) > MAX_THREADS:
        raise RiffError(f"threads is {show(text)}; use a whole number from 1 to {MAX_THREADS}")
    return int(text)


def _match(made: dict[str, str], name: str, pattern: re.Pattern[str]) -> str | None:
    value = made.get(name)
    if value is not None and not pattern.fullmatch(value):
        raise RiffError(f"{name} is {show(value)}, which is invalid")
    return value


def _json(made: dict[str, str], name: str) -> Any:
    try:
        return json.loads(made.get(name, ""))
    except ValueError as error:
        raise RiffError(f"{name} is {show(made.get(name, ''))}, which is no JSON") from error
