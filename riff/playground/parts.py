"""Music in parts that join on bar lines: what is heard of a piece while the rest is still being made."""

import html
import secrets
from collections.abc import Sequence

from riff.clip import Clip
from riff.show import data_uri, paint
from riff.tempo import TempoMap


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
            :class:`riff.endless.Bar` has them; None is a clip of whole bars, whose parts meet on bar lines.
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
