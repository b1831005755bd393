"""What notebooks and web pages show: coloured spectrograms, players and line plots that need no other file."""

import base64
import dataclasses
import html
import io
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from riff.audio.io import save_audio
from riff.utils.errors import RiffError

if TYPE_CHECKING:
    from PIL.Image import Image

# From silence to loud: night, violet, rose, amber, cream. Lightness grows all the way, so it reads in grey as well.
PALETTE = ("#0b0a1f", "#2b1259", "#6c1d7a", "#b5306f", "#e8574c", "#f99b3e", "#fbd87a", "#fdf8df")


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
