"""What notebooks and web pages show: coloured spectrograms, players and line plots that need no other file."""

import base64
import dataclasses
import html
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from riff.audio import save_audio
from riff.errors import RiffError

if TYPE_CHECKING:
    from PIL.Image import Image

# From silence to loud: night, violet, rose, amber, cream. Lightness grows all the way, so it reads in grey as well.
PALETTE = ("#0b0a1f", "#2b1259", "#6c1d7a", "#b5306f", "#e8574c", "#f99b3e", "#fbd87a", "#fdf8df")
LINES = ("#7c5cff", "#e8574c", "#1f9e89", "#d99000", "#3b8fd9", "#8a8a99")
_LEFT, _TOP, _RIGHT, _BOTTOM = 58, 30, 14, 42  # pixels round a plot, for its numbers and names


@dataclasses.dataclass(frozen=True)
class Shown:
    """Something that a notebook shows.

    Attributes:
        html: a snippet that needs no other file.
    """

    html: str

    def _repr_html_(self) -> str:
        return self.html


def paint(image: Tensor, *, width: int | None = None, height: int | None = None, dark: bool = True) -> "Image":
    """A spectrogram picture in colour, for the eye; the grey one is what riff reads back.

    Args:
        image: ``(C, M, N)`` or ``(M, N)`` in [0, 1]; of several channels the mean is shown.
        width: of the result in pixels; default N.
        height: default M.
        dark: whether 0 is silence (the decibel scale); False for the power scale, where 1 is.

    Raises:
        RiffError: the shape is another, or there are numbers that are not finite.
    """
    import PIL.Image

    if image.ndim not in (2, 3) or image.numel() == 0:
        raise RiffError(f"the picture has shape {tuple(image.shape)}; use (channels, mels, frames)")
    pixels = image.detach().float().cpu().numpy()
    if not np.isfinite(pixels).all():
        raise RiffError("the picture holds NaN or infinite pixels")
    pixels = pixels.mean(axis=0) if pixels.ndim == 3 else pixels
    levels = np.clip(pixels if dark else 1.0 - pixels, 0.0, 1.0)
    size = (width or levels.shape[1], height or levels.shape[0])
    # Resized as numbers rather than as colours. BOX is the mean where it shrinks, and keeps edges where it grows.
    small = PIL.Image.fromarray(levels.astype(np.float32)).resize(size, PIL.Image.Resampling.BOX)
    stops = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in PALETTE], dtype=np.float32)
    place = np.asarray(small) * (len(stops) - 1)
    channels = [np.interp(place, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return PIL.Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def data_uri(picture: "Image", kind: str = "PNG", **options: object) -> str:
    """A picture as the text that stands in ``src``."""
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def listen(waveform: Tensor, sample_rate: int, caption: str = "", *, loop: bool = False) -> Shown:
    """A player.

    Args:
        waveform: ``(C, T)`` in [-1, 1]; what lies outside is clipped.
        sample_rate: samples per second.
        caption: a line below it.
        loop: whether it begins again at its end.
    """
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        sound = save_audio(Path(folder) / "sound.wav", waveform, sample_rate).read_bytes()
    source = f"data:audio/wav;base64,{base64.b64encode(sound).decode('ascii')}"
    below = f'<figcaption style="font:13px system-ui,sans-serif;opacity:.8">{html.escape(caption)}</figcaption>'
    return Shown(
        f'<figure style="margin:6px 0"><audio controls{" loop" if loop else ""} src="{source}"></audio>'
        f"{below if caption else ''}</figure>"
    )


def plot(
    lines: Mapping[str, Sequence[float]],
    *,
    x: Sequence[float] | None = None,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    marks: Sequence[float] = (),
    size: tuple[int, int] = (720, 240),
) -> Shown:
    """A plot of some lines, drawn as SVG in the page's own text colour, so that it is read in the dark as well.

    Args:
        lines: name to values; each value at its place of ``x``.
        x: one place for each value; default 0, 1, 2, ...
        title: above the plot.
        x_label: below it.
        y_label: beside it.
        marks: places of dashed vertical lines: bars, seams, keyframes.
        size: width and height in pixels.

    Raises:
        RiffError: no lines, lines of other lengths than ``x``, or numbers that are not finite.
    """
    first = next(iter(lines.values()), ())
    places = np.asarray(range(len(first)) if x is None else x, dtype=float)
    rows = {name: np.asarray(values, dtype=float) for name, values in lines.items()}
    if not len(places) or any(row.shape != places.shape or not np.isfinite(row).all() for row in rows.values()):
        raise RiffError("a plot needs lines of finite numbers, each as long as x")
    width, height = size
    y_ticks = _ticks(min(float(row.min()) for row in rows.values()), max(float(row.max()) for row in rows.values()))
    across = _Scale((float(places.min()), float(places.max())), (_LEFT, width - _RIGHT))
    up = _Scale((y_ticks[0], y_ticks[-1]), (height - _BOTTOM, _TOP))
    middle = _text((_LEFT + width - _RIGHT) / 2, height - 6, x_label, anchor="middle")
    side = f"<g transform='translate(13 {(_TOP + height - _BOTTOM) / 2}) rotate(-90)'>"
    parts = [
        _text(_LEFT, 16, title, weight=600),
        *_grid(across, up, y_ticks, marks),
        *_curves(rows, places, across, up),
        f"{middle}{side}{_text(0, 0, y_label, anchor='middle')}</g>",
    ]
    name = html.escape(title or y_label or "plot", quote=True)
    return Shown(
        f"<svg viewBox='0 0 {width} {height}' width='{width}' height='{height}' role='img' aria-label=\"{name}\" "
        f"style='font:12px system-ui,sans-serif;max-width:100%;height:auto' fill='currentColor' stroke='none'>"
        f"{''.join(parts)}</svg>"
    )


@dataclasses.dataclass(frozen=True)
class _Scale:
    """From numbers to pixels."""

    values: tuple[float, float]
    pixels: tuple[float, float]

    def __call__(self, value: float) -> float:
        (low, high), (start, end) = self.values, self.pixels
        share = (float(value) - low) / (high - low) if high > low else 0.5
        return start + share * (end - start)

    def holds(self, value: float) -> bool:
        low, high = self.values
        return low - 1e-9 <= value <= high + 1e-9


def _grid(across: _Scale, up: _Scale, y_ticks: list[float], marks: Sequence[float]) -> Iterator[str]:
    """Level lines with their numbers, the numbers below, and dashed lines at the marks."""
    (left, right), (bottom, top) = across.pixels, up.pixels
    for tick in y_ticks:
        yield _line(left, up(tick), right, up(tick), "stroke-opacity='.15'")
        yield _text(left - 8, up(tick) + 4, f"{tick:g}", anchor="end")
    for tick in filter(across.holds, _ticks(*across.values)):
        yield _text(across(tick), bottom + 18, f"{tick:g}", anchor="middle")
    for mark in filter(across.holds, marks):
        yield _line(across(mark), top, across(mark), bottom, "stroke-opacity='.5' stroke-dasharray='4 4'")


def _curves(rows: dict[str, np.ndarray], places: np.ndarray, across: _Scale, up: _Scale) -> Iterator[str]:
    """The lines; where there are several, their names in their colours, from the right."""
    legend = across.pixels[1]
    for number, (name, row) in reversed(list(enumerate(rows.items()))):
        colour = LINES[number % len(LINES)]
        points = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in zip(places, row, strict=True))
        yield f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='2'/>"
        if len(rows) > 1:
            yield _text(legend, 16, name, anchor="end", colour=colour, weight=600)
            legend -= 7.5 * len(name) + 16


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, about five steps, that enclose ``low`` and ``high``."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    return [round((first + index) * step, 10) for index in range(math.ceil(high / step - 1e-9) - first + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, more: str) -> str:
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='currentColor' {more}/>"


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = "", weight: int = 400) -> str:
    fill = f" fill='{colour}'" if colour else ""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-weight='{weight}'{fill}>{html.escape(text)}</text>"
    )
