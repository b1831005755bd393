"""How a file was made: written into every sound and picture, read back to replay it."""

import json
from collections.abc import Mapping

from riff import __version__

MACHINE_MADE = "machine-made"


def provenance(
    prompt: str,
    *,
    model: str,
    seed: int | None = None,
    bpm: float | None = None,
    steps: int | None = None,
    guidance: float | None = None,
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
) -> dict[str, str]:
    """Everything needed to make a clip again, as text.

    Args:
        prompt: what was asked for, as the user wrote it.
        model: the checkpoint's name: ``"riff-mini"``, a hub id, or a folder's name.
        seed: the clip's own seed; None if it was made from a caller's generator or latents.
        bpm: tempo in beats per minute.
        steps: denoising steps.
        guidance: classifier-free guidance scale.
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
        "scheduler": scheduler,
        "loop": loop,
        "timeline": timeline,
        "task": task,
        "strength": strength,
        "timesignature": timesignature,
        "key_tries": key_tries,
        "key_measured": key_measured,
        "key_moved": key_moved,
    }
    return {name: _text(value) for name, value in fields.items() if value is not None}


def sound_tags(made: Mapping[str, str]) -> dict[str, str]:
    """The texts that carry a provenance in a sound file.

    Args:
        made: what :func:`provenance` returned.

    Returns:
        ``metadata`` for :func:`riff.audio.save_audio`: the prompt as the title that players show, the
        software, and all of it as JSON in ``comment``, in ASCII since not every player decodes UTF-8.
    """
    title = " ".join("".join(c if c.isprintable() else " " for c in made.get("prompt", "")).split())
    tags = {"title": title[:200], "software": made.get("software", ""), "comment": json.dumps(dict(made))}
    return {field: text for field, text in tags.items() if text}


def read_sound_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The inverse of :func:`sound_tags`; empty for a file that riff did not write.

    Args:
        tags: what :func:`riff.audio.read_metadata` returned, which is anybody's text.
    """
    try:
        made = json.loads(tags.get("comment", ""))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(made, dict) or not str(made.get("software", "")).startswith("riff "):
        return {}
    return {str(name): str(value) for name, value in made.items()}


def _text(value: str | int | float) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
