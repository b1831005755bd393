"""A clip as the page shows it: a player, what it is, files to save, and what can be done with it next."""

import dataclasses
import secrets
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from torch import Tensor

from riff.apps.playground.stage import FORMATS, Shelf, Stage, file_name, problem
from riff.apps.playground.widgets import empty
from riff.audio.io import load_audio, resample, save_audio
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.display import data_uri, paint
from riff.spectrogram.image import mel_to_image
from riff.spectrogram.mel import waveform_to_mel
from riff.spectrogram.tempo import TempoMap
from riff.tasks.clip import Clip
from riff.tasks.provenance import read_made
from riff.utils.errors import RiffError
from riff.utils.pages import render

MAX_SECONDS = 300.0
SEND = (("keep", "Keep"), ("remix", "Remix"), ("extend", "Extend"), ("inpaint", "Inpaint"))
_TEMPLATES = "apps/playground/templates"


def player(clip: Clip, name: str) -> str:
    """A player of one clip of the shelf; ``name`` is its id."""
    image = _address(clip.image, clip.config)
    return player_of(f"clips/{name}.wav", image, clip.duration, label=clip.prompt, bar=_bar_seconds(clip),
                     loop=bool(clip.settings.get("loop")))  # fmt: skip


def player_of(
    source: str, image: str, seconds: float, *, label: str, loop: bool = False, bar: float = 0.0, region: bool = False
) -> str:
    """A player of any sound.

    Args:
        source: address of the sound.
        image: address of its spectrogram.
        seconds: its length.
        label: what it is, for those who do not see it.
        loop: whether it repeats.
        bar: seconds of a bar; 0 draws no lines.
        region: whether a part of it can be chosen by dragging.
    """
    share = bar / seconds if seconds else 0.0
    return render(
        f"{_TEMPLATES}/player.html", source=source, image=image, seconds=seconds, label=label, loop=loop, bar=bar,
        lines=100 * share if 0.01 < share < 1 else 0, region=region, length=clock(seconds),
    )  # fmt: skip


def result_card(
    clip: Clip,
    name: str,
    *,
    code: Sequence[tuple[str, str]] = (),
    notes: tuple[str, ...] = (),
    shown: str = "",
    facts: Sequence[str] = (),
) -> str:
    """All that can be done with a clip.

    Args:
        clip: what was made.
        name: its id on the shelf.
        code: titles and texts that make it again.
        notes: what was warned of.
        shown: the player; default the clip's own.
        facts: what it is; default seed, tempo, length and what else was requested.
    """
    return render(
        f"{_TEMPLATES}/card.html", shown=shown or player(clip, name), title=_title(clip.prompt),
        facts=facts or _facts(clip), notes=[*notes, *_remarks(clip)], name=name, file=file_name(clip), formats=FORMATS,
        send=SEND, code=code,
    )  # fmt: skip


def kept_list(clips: list[tuple[str, Clip]]) -> str:
    """The clips that were kept, with what compares two of them."""
    cards = [{"name": name, "shown": player(clip, name), "title": _title(clip.prompt), "facts": _facts(clip)}
             for name, clip in clips]  # fmt: skip
    return render(f"{_TEMPLATES}/kept.html", cards=cards, send=SEND[1:]) if cards else ""


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _bar_seconds(clip: Clip) -> float:
    """How long a bar is; 0 where the tempo changes or there are no bars."""
    return 0.0 if clip.tempo is not None else int(clip.settings.get("beats_per_bar", 4)) * 60.0 / clip.bpm


def _title(prompt: str) -> str:
    return prompt.replace(" -> ", " → ")


def _facts(clip: Clip) -> list[str]:
    key, steps, guidance = (clip.settings.get(name) for name in ("keyscale", "steps", "guidance"))
    facts = [f"{clip.bpm:.4g} bpm", f"{clip.duration:.1f} s", f"seed {clip.seed}"]
    facts += [str(key)] if key else []
    facts += [f"{steps} steps"] if steps else []
    return facts + ([f"guidance {guidance:g}"] if isinstance(guidance, (int, float)) else [])


def _remarks(clip: Clip) -> list[str]:
    remarks = []
    if clip.ignored_words:
        remarks.append(f"The model does not know: {', '.join(clip.ignored_words)}")
    if clip.dropped_words:
        remarks.append(f"Too long for the model, left out: {', '.join(clip.dropped_words)}")
    return remarks


def _address(image: Tensor, config: SpectrogramConfig, *, width: int = 1400, height: int = 320) -> str:
    return data_uri(paint(image, width=width, height=height, dark=config.amplitude == "decibel"), "WEBP", quality=80)


# Music in parts that join on bar lines: a piece is played while the rest is still being made.


def bar_lines(clip: Clip) -> list[float]:
    """When each bar of a clip begins, and when the last one ends, in seconds."""
    tempo = clip.tempo or TempoMap.constant(clip.bpm)
    beats = _per_bar(clip)
    lines, bar = [0.0], 1
    while (line := float(tempo.seconds_at(bar * beats))) < clip.duration + 0.02:
        lines.append(min(line, clip.duration))
        bar += 1
    if lines[-1] < clip.duration - 0.02:  # it ends inside a bar
        lines.append(clip.duration)
    return lines


def beat_times(clip: Clip) -> list[float]:
    """When each beat of a clip of whole bars is, and when the last one ends, in seconds."""
    tempo = clip.tempo or TempoMap.constant(clip.bpm)
    count = (len(bar_lines(clip)) - 1) * _per_bar(clip)
    return [min(float(tempo.seconds_at(beat)), clip.duration) for beat in range(count + 1)]


def feed(
    kind: str, name: str, clip: Clip, *, text: str, start: int = 0, more: bool = True, beats: Sequence[float] = ()
) -> str:
    """A part for the page's script to play.

    Args:
        kind: whose it is: "live" or "walk".
        name: its id on the shelf.
        clip: itself.
        text: what is shown while it is played.
        start: bar from which it is played.
        more: whether others follow.
        beats: of one bar that is played whole and goes on in the next part to the sample, as
            :class:`riff.tasks.stream.Bar` has them; none is a clip of whole bars, whose parts meet on bar lines.
    """
    lines = [0.0, clip.duration] if beats else bar_lines(clip)
    return render(
        f"{_TEMPLATES}/feed.html", kind=kind, name=name, text=_title(text), beats=beats or beat_times(clip),
        per_bar=_per_bar(clip), start=lines[start], end=lines[-1], more=int(more),
        image=_address(clip.image, clip.config, width=900, height=200),
    )  # fmt: skip


def nothing(kind: str) -> str:
    """Says to the page's script that a part that it requested does not come."""
    return render(f"{_TEMPLATES}/no_feed.html", kind=kind, token=secrets.token_hex(4))


def now(text: str, sample_rate: int) -> str:
    """What a stream is playing, with a light on the beat.

    Args:
        text: to begin with.
        sample_rate: at which it is played, that of the parts, so that no join is resampled.
    """
    return render(f"{_TEMPLATES}/now.html", text=text, sample_rate=sample_rate)


def _per_bar(clip: Clip) -> int:
    return int(clip.settings.get("beats_per_bar") or 4)


# A recording: the field for it, and what it looks and sounds like before anything is done to it.


def sound_image(waveform: Tensor, sample_rate: int) -> str:
    """A sound ``(C, T)``, column by column in seconds: the address of its spectrogram."""
    config = dataclasses.replace(SpectrogramConfig(), grid="seconds")
    mono = resample(waveform.mean(0, keepdim=True), sample_rate, config.sample_rate)
    loudest = float(mono.abs().max())
    if loudest > 0.0:  # quiet ones are brought up, so that there is something to see
        mono = mono * min(0.7 / loudest, 30.0)
    return _address(mel_to_image(waveform_to_mel(mono, config), config), config)


def read_upload(path: str | None) -> tuple[Tensor, int]:
    """The sound ``(1|2, T)`` and its rate.

    Raises:
        RiffError: there is none, it cannot be read, or it is longer than :data:`MAX_SECONDS`.
    """
    if not path:
        raise RiffError("there is no sound yet; upload one or record one")
    try:
        waveform, rate = load_audio(path, max_seconds=MAX_SECONDS)
    except RiffError as error:  # the file lies in a folder of the page's, which means nothing to anyone
        raise RiffError(str(error).replace(str(path), Path(path).name)) from error
    return (waveform if len(waveform) <= 2 else waveform.mean(0, keepdim=True)), rate


def before(shelf: Shelf, path: str | None, *, region: bool = False) -> str:
    """The player of a recording."""
    if not path:
        return empty("Bring a sound, or send one here from another tab")
    waveform, rate = read_upload(path)
    name = shelf.put_files({"wav": lambda target: save_audio(target, waveform, rate)})
    shown = player_of(f"clips/{name}.wav", sound_image(waveform, rate), waveform.shape[-1] / rate,
                      label=Path(path).name, region=region, bar=_stated_bar(path))  # fmt: skip
    return render(f"{_TEMPLATES}/before.html", shown=shown, title=Path(path).name)


def _stated_bar(path: str) -> float:
    """Seconds of a bar, where the file was written by riff and has one tempo; else 0."""
    try:
        made = read_made(path)
        per_bar = 3 if made.get("timesignature") == "3/4" else 4
        return 0.0 if "timeline" in made else per_bar * 60.0 / float(made["bpm"])
    except (RiffError, KeyError, ValueError, ZeroDivisionError):
        return 0.0


def after(clip: Clip, name: str, *, code: Sequence[tuple[str, str]], notes: tuple[str, ...]) -> str:
    """The card of what became of a recording, with a spectrogram of the whole sound."""
    image = sound_image(clip.waveform, clip.sample_rate)
    shown = player_of(f"clips/{name}.wav", image, clip.duration, label=clip.prompt)
    return result_card(clip, name, code=code, notes=notes, shown=shown)


def sound_field(stage: Stage, tab: str, shown: gr.HTML, *, region: bool = False) -> gr.Audio:
    """Where a recording is brought; it is shown in ``shown``."""
    sound = gr.Audio(
        sources=["upload", "microphone"], type="filepath", label="Your sound: a file, or record one",
        elem_id=f"{tab}-sound", elem_classes="riff-sound", buttons=[],
    )  # fmt: skip

    def look(path: str | None) -> object:
        try:
            return before(stage.shelf, path, region=region)
        except RiffError as error:
            return problem(error)

    sound.change(look, sound, shown, show_progress="hidden", api_visibility="private")
    return sound
