"""A clip as the page shows it: a picture with a line that runs through it, what it is, and files to save."""

import html
import re

from riff.clip import Clip
from riff.playground.shelf import FORMATS
from riff.show import data_uri, paint

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
