"""What notebooks and web pages show: coloured spectrograms, players and line plots that need no other file."""

import base64
import dataclasses
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from riff.audio.io import save_audio
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.pages import render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

# From silence to loud: night, violet, rose, amber, cream. Lightness grows all the way, so it reads in grey as well.
PALETTE = ("#0b0a1f", "#2b1259", "#6c1d7a", "#b5306f", "#e8574c", "#f99b3e", "#fbd87a", "#fdf8df")
LINES = ("#7c5cff", "#e8574c", "#1f9e89", "#d99000", "#3b8fd9", "#8a8a99")
_INK = "#010203"  # of a plot; it becomes the page's own text colour


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
    """A spectrogram in colour, for the eye; the grey one is what riff reads back.

    Args:
        image: ``(C, M, N)`` or ``(M, N)`` in [0, 1]; of several channels the mean is shown.
        width: of the result in pixels; default N.
        height: default M.
        dark: whether 0 is silence (the decibel scale); False for the power scale, where 1 is.

    Raises:
        RiffError: the shape is wrong, or there are numbers that are not finite.
    """
    import PIL.Image

    if image.ndim not in (2, 3) or image.numel() == 0:
        raise RiffError(f"the image has shape {tuple(image.shape)}; use (channels, mels, frames)")
    pixels = image.detach().float().cpu().numpy()
    if not np.isfinite(pixels).all():
        raise RiffError("the image holds NaN or infinite pixels")
    pixels = pixels.mean(axis=0) if pixels.ndim == 3 else pixels
    levels = np.clip(pixels if dark else 1.0 - pixels, 0.0, 1.0)
    size = (width or levels.shape[1], height or levels.shape[0])
    # Resized as numbers rather than as colours. BOX is the mean where it shrinks, and keeps edges where it grows.
    small = PIL.Image.fromarray(levels.astype(np.float32)).resize(size, PIL.Image.Resampling.BOX)
    stops = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in PALETTE], dtype=np.float32)
    place = np.asarray(small) * (len(stops) - 1)
    channels = [np.interp(place, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return PIL.Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def data_uri(image: "Image", kind: str = "PNG", **options: object) -> str:
    """An image as the text that stands in ``src``."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return to_data_uri(buffer.getvalue(), f"image/{kind.lower()}")


def to_data_uri(content: bytes, media_type: str) -> str:
    """A file's content as the text that stands in ``src``."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def listen(waveform: Tensor, sample_rate: int, caption: str = "", *, loop: bool = False) -> Shown:
    """A player.

    Args:
        waveform: ``(C, T)`` in [-1, 1]; what lies outside is clipped.
        sample_rate: samples per second.
        caption: a line below it.
        loop: whether it begins again at its end.
    """
    with tempfile.TemporaryDirectory() as folder:
        sound = save_audio(Path(folder) / "sound.wav", waveform, sample_rate).read_bytes()
    return show_sound(sound, caption, loop=loop)


def show_sound(
    wav: bytes, caption: str = "", *, image: "Image | None" = None, facts: Sequence[str] = (), loop: bool = False
) -> Shown:
    """A player, under a wide spectrogram if there is one.

    Args:
        wav: content of a WAV file.
        caption: a line below it.
        image: its spectrogram, as :func:`paint` colours it.
        facts: a second line, in parts.
        loop: whether it begins again at its end.
    """
    picture = data_uri(image, "WEBP", quality=85) if image else ""
    sound = to_data_uri(wav, "audio/wav")
    template = "spectrogram/templates/player.html"
    return Shown(str(render(template, sound=sound, caption=caption, image=picture, facts=facts, loop=loop)))


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
    """Lines as SVG in the page's own text colour, so that they are read in the dark as well. Needs matplotlib.

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
        SystemProblem: matplotlib is not installed.
    """
    first = next(iter(lines.values()), ())
    places = np.asarray(range(len(first)) if x is None else x, dtype=float)
    rows = {name: np.asarray(values, dtype=float) for name, values in lines.items()}
    if not len(places) or any(row.shape != places.shape or not np.isfinite(row).all() for row in rows.values()):
        raise RiffError("a plot needs lines of finite numbers, each as long as x")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SystemProblem("plots need matplotlib; python -m pip install 'riff-music[plots]'") from error
    # A font of the reader's, the same bytes each time, and a dollar that stays one.
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "riff", "text.parse_math": False}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        axes = figure.add_subplot()
        for number, (name, row) in enumerate(rows.items()):
            axes.plot(places, row, label=name, color=LINES[number % len(LINES)], linewidth=2, gid=f"line-{number}")
        for mark in marks:
            if places.min() <= mark <= places.max():
                axes.axvline(mark, color=_INK, alpha=0.5, linestyle="--", linewidth=1, gid="mark")
        _label(axes, title, x_label, y_label, legend=len(rows) > 1)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue().partition("<svg ")[2].replace('pt"', '"', 2)  # its points are pixels here
    tag = render("spectrogram/templates/plot.html", label=title or y_label or "plot")
    return Shown(f"{tag} {svg.replace(_INK, 'currentColor')}")


def _label(axes: "Axes", title: str, x_label: str, y_label: str, *, legend: bool) -> None:
    """Words, ticks and a faint grid, all in the colour of the page's text."""
    axes.set_title(title, loc="left", color=_INK, fontsize=11, fontweight="bold")
    axes.set_xlabel(x_label, color=_INK)
    axes.set_ylabel(y_label, color=_INK)
    axes.tick_params(colors=_INK, length=0)
    axes.grid(axis="y", color=_INK, alpha=0.15)
    axes.spines[:].set_visible(False)
    if legend:
        axes.legend(
            frameon=False, labelcolor=_INK, ncols=3, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1
        )
