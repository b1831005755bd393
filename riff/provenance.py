"""How a file was made: written into every sound and picture, read back to replay it."""

import json
from collections.abc import Mapping
from typing import Any

from riff import __version__
from riff.tags import MACHINE_MADE as MACHINE_MADE
from riff.tags import MAX_BYTES, SOURCE_TYPE

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
        model_hash: :func:`riff.fingerprint.model_hash` of the checkpoint.
        loras: JSON list of the LoRAs on top of it, in the order in which they were loaded: ``name``, ``digest``
            (:func:`riff.fingerprint.lora_hash`) and ``weight`` of each.
        quality: of the step from picture to sound.
        config: JSON of the :class:`riff.SpectrogramConfig` of the picture.
        device: what it was drawn on: ``"cpu"``, or ``"cuda"`` with the name of the card.
        dtype: of the model's weights there, ``"float32"`` or ``"float16"``.
        torch: version of PyTorch.
        bpm_asked: tempo given as an argument; ``bpm`` is what it came to.
        downbeat: second of a recording at which a bar was said to begin.
        ends_pinned: whether a timeline's ends were drawn as plain clips, as a walk's are.
        from_latents: whether it was drawn from given latents rather than from the seed.
        source: :func:`riff.fingerprint.sound_hash` of the recording that was used.
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
        ``metadata`` for :func:`riff.audio.save_audio`: the prompt as the title that players show, the
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
        tags: what :func:`riff.audio.read_metadata` returned, which is anybody's text: too much of it, too deep or too
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
