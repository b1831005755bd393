"""Fields that several tabs have."""

import dataclasses
import html
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from torch import Tensor

from riff.apps.playground.stage import FORMATS, Shelf, Stage, failure, problem
from riff.audio.io import load_audio, resample, save_audio
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.display import data_uri, paint
from riff.spectrogram.image import mel_to_image
from riff.spectrogram.mel import waveform_to_mel
from riff.spectrogram.tempo import TempoMap
from riff.tasks.clip import Clip
from riff.utils.errors import RiffError

_NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEYS = ("open", *(f"{note} {mode}" for mode in ("major", "minor") for note in _NOTES))


def roll() -> int:
    """A seed that is easy to read out."""
    return secrets.randbelow(1_000_000)


def seed_row(tab: str) -> gr.Number:
    """A seed and a dice."""
    with gr.Row(elem_classes="riff-row"):
        seed = gr.Number(roll, label="Seed: same seed, same music", precision=0, minimum=0, elem_id=f"{tab}-seed",
                         min_width=140, scale=4)  # fmt: skip
        dice = gr.Button("Roll", elem_classes="riff-dice", elem_id=f"{tab}-dice", min_width=80, scale=1)
    dice.click(roll, None, seed, queue=False, api_visibility="private")
    return seed


def more_settings(stage: Stage, *, steps: int = 20) -> tuple[gr.Slider, gr.Slider, gr.Textbox, gr.Dropdown]:
    """Steps, guidance, negative prompt and key, folded away."""
    usual = stage.pipe.model.default_guidance
    with gr.Accordion("More settings", open=False):
        with gr.Row():
            count = gr.Slider(1, 100, steps, step=1, label="Steps: more is slower, and cleaner", min_width=160)
            guidance = gr.Slider(0, 15, usual, step=0.1, label="Guidance: how strictly it obeys", min_width=160)
        with gr.Row():
            negative = gr.Textbox(
                label="Stay away from", placeholder="drums, distortion", max_length=1000, min_width=160
            )
            key = gr.Dropdown(list(KEYS), value=KEYS[0], label="Key", min_width=120)
    return count, guidance, negative, key


def buttons(text: str, tab: str) -> tuple[gr.Button, gr.Button, gr.HTML]:
    """The one that begins, the one that stops, and how far it is."""
    with gr.Row():
        go = gr.Button(text, variant="primary", size="lg", elem_id=f"{tab}-go", scale=3, min_width=140)
        stop = gr.Button("Stop", size="lg", elem_id=f"{tab}-stop", scale=1, min_width=80)
    return go, stop, gr.HTML("", elem_classes="riff-status", elem_id=f"{tab}-status")


def start(
    stage: Stage,
    events: Sequence[Any],
    work: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    stop: gr.Button,
) -> None:
    """Let events begin a piece of work, whose status is the first output, and a button stop it."""
    gr.on(
        events, work, list(inputs), list(outputs), show_progress="minimal", show_progress_on=outputs[0],
        concurrency_limit=1, concurrency_id="model", trigger_mode="once", api_visibility="private",
    )  # fmt: skip
    stop.click(stage.stop, None, None, queue=False, api_visibility="private")


# WAS riff/playground/card.py: A clip as the page shows it: a picture with a line that runs through it, what it
# is, and files to save.

_WIDTH, _HEIGHT = 1200, 256


def player(clip: Clip, name: str, *, label: str = "", loop: bool = False) -> str:
    """A player of one clip of the shelf.

    Args:
        clip: what is played.
        name: its id.
        label: above it.
        loop: whether it goes round.
    """
    picture = data_uri(
        paint(clip.image, width=_WIDTH, height=_HEIGHT, dark=clip.config.amplitude == "decibel"), "WEBP", quality=80
    )
    return player_of(
        f"clips/{name}.wav", picture, clip.duration, label=label or clip.prompt, loop=loop, bar=bar_share(clip)
    )


def player_of(
    source: str, picture: str, seconds: float, *, label: str, loop: bool = False, bar: float = 0.0, region: bool = False
) -> str:
    """A player of any sound.

    Args:
        source: address of the sound.
        picture: address of its picture.
        seconds: its length.
        label: what it is, for those who do not see it.
        loop: whether it goes round.
        bar: share of the picture that one bar takes; 0 draws no lines.
        region: whether a stretch of it can be chosen by dragging.
    """
    said = html.escape(label, quote=True)
    lines = f' style="--bar:{100 * bar:.4f}%"' if 0.01 < bar < 1 else ""
    chosen = '<b class="riff-region" hidden></b>' if region else ""
    return (
        f'<div class="riff-player"><audio preload="metadata"{" loop" if loop else ""} src="{source}"></audio>'
        f'<div class="riff-picture{" riff-choose" if region else ""}" role="slider" tabindex="0" '
        f'aria-label="place in: {said}" aria-valuemin="0" '
        f'aria-valuemax="{seconds:.1f}" aria-valuenow="0"{lines}><img alt="spectrogram of {said}" src="{picture}">'
        f"{chosen}<i></i></div>"
        f'<div class="riff-bar"><button type="button" class="riff-play" aria-label="play: {said}"></button>'
        f'<span class="riff-time"><span class="riff-now">0:00</span> / {clock(seconds)}</span>'
        f'<label class="riff-loop"><input type="checkbox" class="riff-round"{" checked" if loop else ""}> loop</label>'
        "</div></div>"
    )


def result_card(
    clip: Clip,
    name: str,
    *,
    python: str = "",
    shell: str = "",
    notes: tuple[str, ...] = (),
    shown: str = "",
    facts: list[str] | None = None,
) -> str:
    """All that can be done with a clip.

    Args:
        clip: what was made.
        name: its id on the shelf.
        python: code that makes it again.
        shell: command that makes it again.
        notes: what was warned of.
        shown: the player; default the clip's own.
        facts: what is said of it; default seed, tempo, length and what else it was asked for.
    """
    title = html.escape(clip.prompt.replace(" -> ", " → "))
    return (
        f'<article class="riff-card">{shown or player(clip, name, loop=bool(clip.settings.get("loop")))}'
        f"<h3>{title}</h3>{_list(facts or _facts(clip))}{_remarks(clip, notes)}"
        f'<div class="riff-files"><span>Save as</span>{_links(clip, name)}</div>'
        f"{_code('Copy as Python', python)}{_code('Copy as shell command', shell)}</article>"
    )


def kept_list(clips: list[tuple[str, Clip]]) -> str:
    """The clips that were kept, with what compares two of them."""
    if not clips:
        return ""
    cards = "".join(_kept_card(number, name, clip) for number, (name, clip) in enumerate(clips))
    compare = (
        '<div class="riff-compare"><strong>A / B</strong><button type="button" class="riff-both">Play</button>'
        '<button type="button" class="riff-switch" aria-live="polite">Hear B</button>'
        "<small>Two clips run side by side; switch as often as you like.</small></div>"
    )
    return f'<section class="riff-kept"><h2>Kept</h2>{compare if len(clips) > 1 else ""}<div>{cards}</div></section>'


def bar_share(clip: Clip) -> float:
    """The share of a clip's picture that one bar takes; 0 where its tempo changes."""
    beats = int(clip.settings.get("beats_per_bar", 4))
    if clip.tempo is not None or beats == 0:
        return 0.0
    bar = beats * 60.0 / clip.bpm
    return bar / clip.duration if clip.duration else 0.0


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def file_name(clip: Clip) -> str:
    """A name for a saved file, without its suffix."""
    words = re.findall(r"[a-z0-9]+", clip.prompt.lower())
    return "-".join([*words[:6], str(clip.seed)])[:60] or "riff"


def _facts(clip: Clip) -> list[str]:
    facts = [f"seed {clip.seed}", f"{clip.bpm:.4g} bpm", f"{clip.duration:.1f} s"]
    key = clip.settings.get("keyscale")
    steps, guidance = clip.settings.get("steps"), clip.settings.get("guidance")
    facts += [str(key)] if key else []
    facts += [f"{steps} steps"] if steps else []
    facts += [f"guidance {guidance:g}"] if isinstance(guidance, (int, float)) else []
    return facts


def _list(facts: list[str]) -> str:
    return f'<ul class="riff-facts">{"".join(f"<li>{html.escape(fact)}</li>" for fact in facts)}</ul>'


def _remarks(clip: Clip, notes: tuple[str, ...]) -> str:
    said = list(notes)
    if clip.ignored_words:
        said.append(f"The model was not taught: {', '.join(clip.ignored_words)}")
    if clip.dropped_words:
        said.append(f"Too long for the model, left out: {', '.join(clip.dropped_words)}")
    return "".join(f'<p class="riff-note">{html.escape(each)}</p>' for each in said)


def _links(clip: Clip, name: str) -> str:
    title = file_name(clip)
    return "".join(f'<a href="clips/{name}.{kind}" download="{title}.{kind}">{kind.upper()}</a>' for kind in FORMATS)


def _code(title: str, text: str) -> str:
    if not text:
        return ""
    return (
        f'<details class="riff-code"><summary>{title}</summary><pre tabindex="0">{html.escape(text)}</pre>'
        '<button type="button" class="riff-copy">Copy</button></details>'
    )


def _kept_card(number: int, name: str, clip: Clip) -> str:
    letters = "".join(
        f'<label><input type="radio" name="riff-{letter}" class="riff-{letter}"'
        f"{' checked' if number == place else ''}> {letter.upper()}</label>"
        for place, letter in enumerate("ab")
    )
    return (
        f'<article class="riff-card">{player(clip, name, loop=bool(clip.settings.get("loop")))}'
        f"<h3>{html.escape(clip.prompt.replace(' -> ', ' → '))}</h3>{_list(_facts(clip))}"
        f'<div class="riff-files">{letters}<span></span>{_links(clip, name)}</div></article>'
    )


# WAS riff/playground/parts.py: Music in parts that join on bar lines: what is heard of a piece while the rest
# is still being made.


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
    kind: str,
    name: str,
    clip: Clip,
    *,
    said: str,
    start: int = 0,
    more: bool = True,
    beats: Sequence[float] | None = None,
) -> str:
    """What tells the page's script of a part.

    Args:
        kind: whose it is: "live" or "walk".
        name: its id on the shelf.
        clip: itself.
        said: what is shown while it is heard.
        start: bar from which it is played.
        more: whether others follow.
        beats: of one bar that is played whole and goes on in the next part to the sample, as
            :class:`riff.tasks.stream.Bar` has them; None is a clip of whole bars, whose parts meet on bar lines.
    """
    lines = bar_lines(clip) if beats is None else [0.0, clip.duration]
    picture = data_uri(paint(clip.image, width=900, height=160, dark=clip.config.amplitude == "decibel"), "WEBP")
    told = " ".join(f"{time:.6f}" for time in (beat_times(clip) if beats is None else beats))
    return (
        f'<span class="riff-part" hidden data-feed="{kind}" data-src="clips/{name}.wav" data-beats="{told}" '
        f'data-per-bar="{_per_bar(clip)}" data-from="{lines[start]:.6f}" data-until="{lines[-1]:.9f}" '
        f'data-more="{int(more)}" '
        f'data-picture="{picture}" data-said="{html.escape(said.replace(" -> ", " → "), quote=True)}"></span>'
    )


def nothing(kind: str) -> str:
    """What tells the page's script that a part that it asked for does not come."""
    return f'<span class="riff-part" hidden data-feed="{kind}" data-token="{secrets.token_hex(4)}"></span>'


def now(text: str, sample_rate: int) -> str:
    """The line under a stream that says what is heard, with a light on the beat.

    Args:
        text: to begin with.
        sample_rate: at which it is played, that of the parts, so that no join is resampled.
    """
    return (
        '<div class="riff-picture riff-live-picture"><img alt="spectrogram of what is heard"><i></i></div>'
        f'<div class="riff-live" role="status" data-rate="{sample_rate}">'
        f'<i class="riff-beat"></i><span class="riff-live-now">{text}</span></div>'
    )


def _per_bar(clip: Clip) -> int:
    return int(clip.settings.get("beats_per_bar") or 4)


# WAS riff/playground/recording.py: A recording that somebody brings: the field for it, and how it looks and
# sounds before anything is done to it.

MAX_SECONDS = 300.0
NOTHING = '<div class="riff-empty"><span>Bring a sound, then say what is to become of it</span></div>'


def sound_picture(waveform: Tensor, sample_rate: int) -> str:
    """A sound ``(C, T)`` as the eye likes it, column by column in seconds: the address of its picture."""
    config = dataclasses.replace(SpectrogramConfig(), grid="seconds")
    mono = resample(waveform.mean(0, keepdim=True), sample_rate, config.sample_rate)
    loudest = float(mono.abs().max())
    if loudest > 0.0:  # quiet ones are brought up, so that there is something to see
        mono = mono * min(0.7 / loudest, 30.0)
    image = mel_to_image(waveform_to_mel(mono, config), config)
    return data_uri(paint(image, width=1200, height=256), "WEBP", quality=80)


def read_upload(path: str | None) -> tuple[Tensor, int]:
    """The sound ``(1|2, T)`` and its rate.

    Raises:
        RiffError: there is none, it cannot be read, or it is longer than :data:`MAX_SECONDS`.
    """
    if not path:
        raise RiffError("there is no sound yet; upload one or record one")
    try:
        waveform, rate = load_audio(path, max_seconds=MAX_SECONDS)
    except RiffError as error:  # the file lies in a folder of the page's, whose name tells nobody anything
        raise RiffError(str(error).replace(str(path), Path(path).name)) from error
    return (waveform if len(waveform) <= 2 else waveform.mean(0, keepdim=True)), rate


def before(shelf: Shelf, path: str | None, *, region: bool = False) -> str:
    """The player of what was brought."""
    if not path:
        return NOTHING
    waveform, rate = read_upload(path)
    name = shelf.put_files({"wav": lambda target: save_audio(target, waveform, rate)})
    seconds = waveform.shape[-1] / rate
    shown = player_of(f"clips/{name}.wav", sound_picture(waveform, rate), seconds, label=Path(path).name, region=region)
    return f'<article class="riff-card"><h4>Before</h4>{shown}</article>'


def after(clip: Clip, name: str, *, python: str, shell: str, notes: tuple[str, ...]) -> str:
    """The card of what became of it, with a picture of the whole sound."""
    picture = sound_picture(clip.waveform, clip.sample_rate)
    shown = player_of(f"clips/{name}.wav", picture, clip.duration, label=clip.prompt)
    return result_card(clip, name, python=python, shell=shell, notes=notes, shown=f"<h4>After</h4>{shown}")


def field(stage: Stage, tab: str, shown: gr.HTML, *, region: bool = False) -> gr.Audio:
    """Where a recording is brought; what it was is shown in ``shown``."""
    sound = gr.Audio(
        sources=["upload", "microphone"], type="filepath", label="Your sound: a file, or record one",
        elem_id=f"{tab}-sound", buttons=[],
    )  # fmt: skip

    def look(path: str | None) -> object:
        try:
            return before(stage.shelf, path, region=region)
        except RiffError as error:
            return problem(error)

    sound.change(look, sound, shown, show_progress="hidden", api_visibility="private")
    return sound


def check_sound(path: str | None) -> str:
    """The path of a recording that can be read.

    Raises:
        gr.Error: it cannot.
    """
    try:
        read_upload(path)
    except RiffError as error:
        raise failure(error) from error
    return str(path)
