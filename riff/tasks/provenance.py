"""How a file was made: written into every sound and picture, read back to replay it."""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from riff.audio.io import read_metadata
from riff.audio.tags import MACHINE_MADE, MAX_BYTES, SOURCE_TYPE
from riff.diffusion.fingerprint import Adapter
from riff.music.theory import canonical_key
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.png import read_png
from riff.tasks.checks import check_length, check_metre, check_negative, check_prompts, check_sampling
from riff.tasks.stems import told_stems
from riff.tasks.timeline import Timeline
from riff.utils.errors import RiffError
from riff.utils.validation import BPM_RANGE, MAX_SEED, check_interval, check_number, show
from riff.version import __version__

MAX_FIELDS = 64  # of a file's account; riff writes half as many


def provenance(
    prompt: str,
    *,
    model: str,
    seed: int | None = None,
    bpm: float | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    guidance_interval: str | None = None,
    compiled: bool | None = None,
    scheduler: str | None = None,
    negative_prompt: str | None = None,
    keyscale: str | None = None,
    bars: float | None = None,
    duration: float | None = None,
    loop: bool | None = None,
    timeline: str | None = None,
    task: str | None = None,
    strength: float | None = None,
    timesignature: str | None = None,
    key_tries: int | None = None,
    key_measured: str | None = None,
    key_moved: int | None = None,
    model_hash: str | None = None,
    loras: str | None = None,
    quality: str | None = None,
    config: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    torch: str | None = None,
    bpm_asked: float | None = None,
    downbeat: float | None = None,
    ends_pinned: bool | None = None,
    from_latents: bool | None = None,
    source: str | None = None,
    regions: str | None = None,
    band: str | None = None,
    stems: str | None = None,
    separator: str | None = None,
) -> dict[str, str]:
    """Everything needed to make a clip again, as text.

    Args:
        prompt: what was asked for, as the user wrote it.
        model: the checkpoint's name: ``"riff-mini"``, a hub id, or a folder's name.
        seed: the clip's own seed; None if it was made from a caller's generator or latents.
        bpm: tempo in beats per minute.
        steps: denoising steps.
        guidance: classifier-free guidance scale.
        guidance_interval: JSON pair of the shares of the steps from and until which there was guidance.
        compiled: whether the denoiser was compiled.
        scheduler: class name of the noise scheduler.
        negative_prompt: what was asked to stay away.
        keyscale: key asked for as an argument, e.g. ``"F# minor"``.
        bars: length asked for, in bars.
        duration: length asked for, in seconds.
        loop: whether the end leads back into the start.
        timeline: JSON of the :class:`riff.Timeline` that was drawn.
        task: ``"remix"``, ``"extend"``, ``"inpaint"`` or ``"interpolate"`` where a recording or picture was used.
        strength: how much of that was drawn anew, 0 to 1.
        timesignature: metre asked for as an argument.
        key_tries: how often it might be drawn until its key was the asked one.
        key_measured: the key it was found to have.
        key_moved: semitones by which it was moved to have it.
        model_hash: :func:`riff.diffusion.fingerprint.model_hash` of the checkpoint.
        loras: JSON list of the LoRAs on top of it, in the order in which they were loaded: ``name``, ``digest``
            (:func:`riff.diffusion.fingerprint.lora_hash`) and ``weight`` of each.
        quality: of the step from picture to sound.
        config: JSON of the :class:`riff.SpectrogramConfig` of the picture.
        device: what it was drawn on: ``"cpu"``, or ``"cuda"`` with the name of the card.
        dtype: of the model's weights there, ``"float32"`` or ``"float16"``.
        torch: version of PyTorch.
        bpm_asked: tempo given as an argument; ``bpm`` is what it came to.
        downbeat: second of a recording at which a bar was said to begin.
        ends_pinned: whether a timeline's ends were drawn as plain clips, as a walk's are.
        from_latents: whether it was drawn from given latents rather than from the seed.
        source: :func:`riff.diffusion.fingerprint.sound_hash` of the recording that was used.
        regions: JSON list of first and last second of each part of it that was replaced.
        band: JSON pair of the Hz between which it was replaced.
        stems: JSON list of those of its stems that were drawn anew.
        separator: what took it apart: ``"htdemucs"``, or ``"own"`` for a function of the caller's.

    Returns:
        Field name to text, always with ``software`` (``"riff x.y.z"``) and ``origin`` (``"machine-made"``);
        fields that are None are left out. Numbers are written so that they read back exactly.
    """
    fields = {
        "software": f"riff {__version__}",
        "origin": MACHINE_MADE,
        "model": model,
        "prompt": prompt,
        "negative_prompt": negative_prompt or None,
        "seed": seed,
        "bpm": bpm,
        "keyscale": keyscale,
        "bars": bars,
        "duration": duration,
        "steps": steps,
        "guidance": guidance,
        "guidance_interval": guidance_interval,
        "compiled": compiled,
        "scheduler": scheduler,
        "loop": loop,
        "timeline": timeline,
        "task": task,
        "strength": strength,
        "timesignature": timesignature,
        "key_tries": key_tries,
        "key_measured": key_measured,
        "key_moved": key_moved,
        "model_hash": model_hash,
        "loras": loras,
        "quality": quality,
        "config": config,
        "device": device,
        "dtype": dtype,
        "torch": torch,
        "bpm_asked": bpm_asked,
        "downbeat": downbeat,
        "ends_pinned": ends_pinned,
        "from_latents": from_latents,
        "source": source,
        "regions": regions,
        "band": band,
        "stems": stems,
        "separator": separator,
    }
    return {name: _text(value) for name, value in fields.items() if value is not None}


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
    told = {} if set(made) <= {"origin"} else {field: text for field, text in tags.items() if text}
    return told | {"source_type": SOURCE_TYPE}


def handed_on(made: Mapping[str, Any], task: str) -> dict[str, str]:
    """The account of a file that was made from another one without a model: what that one says, and the task.

    Args:
        made: the other file's, which is anybody's.
        task: ``"encode"`` or ``"decode"``.

    Returns:
        Empty where the other was not machine-made. The config is left out, which is the other's own.
    """
    if made.get("origin") != MACHINE_MADE:
        return {}
    texts = {name: text for name, text in made.items() if isinstance(text, str) and name != "config"}
    return texts | {"task": task} if "software" in texts else {"origin": MACHINE_MADE}


def read_sound_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The inverse of :func:`sound_tags`; empty for a file that riff did not write.

    Args:
        tags: what :func:`riff.audio.io.read_metadata` returned, which is anybody's text: too much of it, too deep or too
            many fields are none of riff's.
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


# WAS riff/recipe.py: What a file says about how it was made, read as a stranger's text: every value checked
# before anything is loaded.

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
EDITS = ("remix", "extend", "inpaint")
MAX_LORAS = 16
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9]{1,60}")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to make a file again.

    Attributes:
        path: the file.
        task: "render", "timeline" (a walk is one too), "remix", "extend" or "inpaint".
        software: what made it, ``"riff x.y.z"``.
        model: what the checkpoint was called; a stranger's text, which may be a path or a Hub id.
        model_hash: of its files; None if it is not told, as with the two that follow.
        config: of its picture.
        scheduler: class name.
        guidance_interval: shares of the steps from and until which there was guidance.
        compiled: whether the denoiser was compiled.
        loras: on top of the model, in the order in which they were loaded.
        device: what it was drawn on.
        dtype: of the weights there.
        torch: version of PyTorch there.
        source: hash of the recording that was used; None where there was none.
        arguments: of the call, in the pipeline's names and ranges.
        timeline: what was played, for that task.
        ends_pinned: whether it was a walk with two ends.
    """

    path: Path
    task: str
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
    source: str | None
    arguments: dict[str, Any]
    timeline: Timeline | None = None
    ends_pinned: bool = False


def read_made(path: str | Path) -> dict[str, Any]:
    """A file's account of how it was made, unchecked.

    Returns:
        Field to value as :func:`riff.tasks.provenance.provenance` names them; only ``origin`` where just the mark is left;
        empty where riff did not write it.

    Raises:
        RiffError: it is no sound and no picture, or damaged.
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
        return _read(Path(path), {name: _text_recipe(name, made[name]) for name in made if name in _KNOWN})
    except (RecursionError, OverflowError) as error:
        raise RiffError(f"{path} has a damaged recipe ({type(error).__name__}); it cannot be replayed") from error
    except RiffError as error:
        raise RiffError(f"{path} has a recipe that cannot be replayed: {error}") from error


_KNOWN = (
    *("software", "model", "model_hash", "config", "scheduler", "loras", "device", "dtype", "torch", "source", "task"),
    *("prompt", "negative_prompt", "seed", "bpm_asked", "downbeat", "keyscale", "bars", "duration", "steps"),
    *("guidance", "guidance_interval", "quality", "loop", "timesignature", "key_tries", "strength", "regions", "band"),
    *("timeline", "ends_pinned", "from_latents", "stems", "separator", "compiled"),
)


def _read(path: Path, made: dict[str, str]) -> Recipe:
    if _flag(made, "from_latents"):
        raise RiffError("it was drawn from latents that were given, which no seed makes again")
    task = made.get("task", "timeline" if "timeline" in made else "render")
    arguments = _TASKS.get(task, _unknown(task))(made) | _common(made)
    source = _match(made, "source", _DIGEST)
    if task in EDITS and source is None:
        raise RiffError("it does not say which recording it was made from")
    return Recipe(
        path=path,
        task=task,
        software=made["software"],
        model=_name(made),
        model_hash=_match(made, "model_hash", _DIGEST),
        config=SpectrogramConfig.from_dict(_json(made, "config")) if "config" in made else None,
        scheduler=_match(made, "scheduler", _NAME),
        guidance_interval=check_interval(_json(made, "guidance_interval") if "guidance_interval" in made else [0, 1]),
        compiled=_flag(made, "compiled"),
        loras=_loras(made),
        device=made.get("device"),
        dtype=_match(made, "dtype", _NAME),
        torch=made.get("torch"),
        source=source,
        timeline=arguments.pop("timeline", None),
        ends_pinned=_flag(made, "ends_pinned"),
        arguments=arguments,
    )


def _common(made: dict[str, str]) -> dict[str, Any]:
    """What every task needs."""
    steps, seed = _number(made, "steps", 1, 150, whole=True), _number(made, "seed", 0, MAX_SEED, whole=True)
    guidance, quality = _number(made, "guidance", 0, 50), made.get("quality", "default")
    if steps is None or seed is None:
        raise RiffError("it lacks its steps or its seed")
    check_sampling(None, int(steps), guidance, 1, quality)
    return {"num_inference_steps": steps, "seed": seed, "guidance_scale": guidance, "quality": quality}


def _wishes(made: dict[str, str]) -> dict[str, Any]:
    """Prompt, tempo and key."""
    prompt, negative = made.get("prompt", ""), made.get("negative_prompt")
    check_prompts(prompt)
    check_negative(negative)
    key = made.get("keyscale")
    return {
        "prompt": prompt,
        "negative_prompt": negative,
        "bpm": _number(made, "bpm_asked", *BPM_RANGE),
        "keyscale": None if key is None else canonical_key(key),
    }


def _render(made: dict[str, str]) -> dict[str, Any]:
    bars, duration = _number(made, "bars", 1, 512, whole=True), _number(made, "duration", 0.1, 600)
    check_length(None if bars is None else int(bars), duration)
    check_metre(made.get("timesignature"))
    return _wishes(made) | {
        "bars": bars,
        "duration": duration,
        "key_tries": _number(made, "key_tries", 0, 16, whole=True) or 0,
        "timesignature": made.get("timesignature"),
        "loop": _flag(made, "loop"),
    }


def _timeline(made: dict[str, str]) -> dict[str, Any]:
    return {"timeline": Timeline.from_dict(_json(made, "timeline"))}


def _edit(made: dict[str, str]) -> dict[str, Any]:
    return _wishes(made) | {"downbeat": _number(made, "downbeat", 0, 3600)}


def _remix(made: dict[str, str]) -> dict[str, Any]:
    return _edit(made) | {"strength": _needed(made, "strength", 0, 1), "stems": told_stems(made)}


def _extend(made: dict[str, str]) -> dict[str, Any]:
    return _edit(made) | {"bars": _needed(made, "bars", 1, 512, whole=True)}


def _inpaint(made: dict[str, str]) -> dict[str, Any]:
    regions = _pairs(made, "regions", 86400)
    (low, high) = _pairs({"band": f"[{made['band']}]"}, "band", 400_000)[0] if "band" in made else (None, None)
    return _edit(made) | {
        "mask_start_seconds": [start for start, _ in regions],
        "mask_end_seconds": [end for _, end in regions],
        "low_hz": low,
        "high_hz": high,
    }


_TASKS: dict[str, Callable[[dict[str, str]], dict[str, Any]]] = {
    "render": _render,
    "timeline": _timeline,
    "remix": _remix,
    "extend": _extend,
    "inpaint": _inpaint,
}


def _unknown(task: str) -> Callable[[dict[str, str]], dict[str, Any]]:
    def refuse(made: dict[str, str]) -> dict[str, Any]:
        raise RiffError(f"its task is {show(task)}; {', '.join(_TASKS)} can be made again")

    return refuse


def _name(made: dict[str, str]) -> str:
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
        check_number(fields.get("weight"), "the weight of a LoRA", 0, 2)
        found.append(Adapter(str(name), digest, fields["weight"]))
    return tuple(found)


def _text_recipe(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_BYTES:
        raise RiffError(f"{name} is {show(value)}; use text of at most {MAX_BYTES:,} characters")
    return value


def _flag(made: dict[str, str], name: str) -> bool:
    value = made.get(name, "False")
    if value not in ("True", "False"):
        raise RiffError(f"{name} is {show(value)}; use True or False")
    return value == "True"


def _number(made: dict[str, str], name: str, low: float, high: float, *, whole: bool = False) -> float | None:
    if name not in made:
        return None
    try:
        value = int(made[name]) if whole else float(made[name])
    except ValueError as error:
        raise RiffError(f"{name} is {show(made[name])}; use a number from {low:g} to {high:g}") from error
    check_number(value, name, low, high, whole=whole)
    return value


def _needed(made: dict[str, str], name: str, low: float, high: float, *, whole: bool = False) -> float:
    value = _number(made, name, low, high, whole=whole)
    if value is None:
        raise RiffError(f"it lacks {name}")
    return value


def _match(made: dict[str, str], name: str, pattern: re.Pattern[str]) -> str | None:
    value = made.get(name)
    if value is not None and not pattern.fullmatch(value):
        raise RiffError(f"{name} is {show(value)}, which is none")
    return value


def _json(made: dict[str, str], name: str) -> Any:
    try:
        return json.loads(made.get(name, ""))
    except ValueError as error:
        raise RiffError(f"{name} is {show(made.get(name, ''))}, which is no JSON") from error


def _pairs(made: dict[str, str], name: str, high: float) -> list[tuple[float, float]]:
    rows = _json(made, name)
    if not isinstance(rows, list) or not 1 <= len(rows) <= 1000:
        raise RiffError(f"{name} is {show(rows)}; use a list of pairs")
    for row in rows:
        if not isinstance(row, list) or len(row) != 2:
            raise RiffError(f"{name} holds {show(row)}; use pairs of numbers")
        for value in row:
            check_number(value, name, 0, high)
    return [(row[0], row[1]) for row in rows]
