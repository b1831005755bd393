"""A canvas of any length, denoised through windows of the training image's width that slide by whole bars.

The model knows where the bar is from the border of the image, so it never sees a canvas whole: from step to step the
windows move on by a bar, round the end of a loop as well, and in the last steps they overlap and are faded into each
other. The conditioning may change along the canvas.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from riff.diffusion.conditioning import CanvasConditioning
from riff.diffusion.latents import sample_noise, seeded_generator, slerp
from riff.diffusion.sampling import ALWAYS, Interval, guided_prediction, is_guided
from riff.spectrogram.config import SpectrogramConfig
from riff.utils.errors import RiffError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

# Share of the steps, the last ones, in which windows overlap: this hides the joins of windows that worked alone.
OVERLAPPING = 0.25


def training_width(config: SpectrogramConfig, beats_per_bar: int) -> int:
    """Columns of a training image: two bars of three where it holds two of four."""
    return config.width * 3 // 4 if config.grid == "beats" and beats_per_bar == 3 else config.width


def padded_width(columns: int, usual: int, multiple: int) -> int:
    """Columns to generate where ``columns`` are kept: whole latents, and at least a training image's ``usual``."""
    return math.ceil(max(columns, usual) / multiple) * multiple


@dataclasses.dataclass(frozen=True)
class Tile:
    """One window on the canvas.

    Attributes:
        columns: (w,) int64, the canvas columns that it sees.
        weights: (w,) float32, its share in the prediction of each; the shares of all windows sum to 1.
    """

    columns: Tensor
    weights: Tensor


@dataclasses.dataclass(frozen=True)
class WindowLayout:
    """Where windows are, in latent columns.

    Attributes:
        width: of the canvas.
        window: of the training image.
        stride: of a bar, by which windows move.
        loop: whether the end leads back into the start.
        pinned: starts of windows that keep their columns to themselves at every step: their result is that of a clip
            of the training width, bit for bit, and the rest of the canvas fits itself to it.

    Raises:
        RiffError: the canvas is narrower than a window and no loop, or a pinned window does not fit.
    """

    width: int
    window: int
    stride: int
    loop: bool = False
    pinned: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if min(self.width, self.window, self.stride) < 1 or (self.width < self.window and not self.loop):
            raise RiffError(
                f"a canvas of {self.width} columns has no place for a window of {self.window} that moves by "
                f"{self.stride}; make it at least one window long"
            )
        if any(not 0 <= start <= self.width - self.window for start in self.pinned):
            raise RiffError(f"pinned windows at {self.pinned} do not lie in a canvas of {self.width} columns")

    def tiles(self, step: int, steps: int) -> tuple[Tile, ...]:
        """The windows of one denoising step of ``steps``."""
        if step >= steps - max(1, round(OVERLAPPING * steps)):
            return self._overlapping
        offsets = range(0, self.window, self.stride)
        return self._side_by_side(offsets[step % len(offsets)])

    @functools.cached_property
    def _overlapping(self) -> tuple[Tile, ...]:
        """Windows at every bar; each counts most in its middle."""
        if self.loop:
            starts = list(range(0, self.width, self.stride))
        else:
            starts = sorted({*range(0, self.width - self.window, self.stride), self.width - self.window})
        inner = torch.arange(self.window) + 0.5
        fade = torch.minimum(inner, self.window - inner)
        return self._share([(start, fade) for start in starts])

    @functools.cache  # noqa: B019 - a layout lives as long as its canvas
    def _side_by_side(self, offset: int) -> tuple[Tile, ...]:
        """Windows that meet at ``offset`` and every window's width from there; each counts where it is used alone.

        The cuts divide the canvas into pieces of at most a window, the outer ones shorter. A short piece is the end of
        a whole window that begins before it, so the model sees what leads there; at the start of a canvas that is no
        loop nothing is before it, and it is the beginning of a window.
        """
        if self.loop:
            cuts = [*range(offset, offset + self.width, self.window), offset + self.width]
        else:
            cuts = [0, *range(offset or self.window, self.width, self.window), self.width]
        pieces = []
        for first, stop in itertools.pairwise(cuts):
            start = stop - self.window
            if start < 0 and not self.loop:
                start = 0
            elif self.width < self.window:  # a loop that one window sees several times side by side
                start = first
            used = torch.zeros(self.window)
            used[first - start : stop - start] = 1.0
            pieces.append((start, used))
        return self._share(pieces)

    def _share(self, pieces: list[tuple[int, Tensor]]) -> tuple[Tile, ...]:
        """Tiles from starts and raw weights (w,), so that the weights on each column sum to 1."""
        # Two pieces of one window are one prediction.
        joined: dict[int, Tensor] = {}
        for start, raw in pieces:
            joined[start] = joined[start] + raw if start in joined else raw
        total = torch.zeros(self.width)
        own = torch.zeros(self.width, dtype=torch.bool)
        placed = [((torch.arange(self.window) + start) % self.width, raw) for start, raw in joined.items()]
        for columns, raw in placed:
            total.index_add_(0, columns, raw)
        for start in self.pinned:
            own[start : start + self.window] = True
        tiles = [Tile(columns, torch.where(own[columns], 0.0, raw / total[columns])) for columns, raw in placed]
        tiles += [Tile(torch.arange(self.window) + start, torch.ones(self.window)) for start in self.pinned]
        return tuple(tile for tile in tiles if bool((tile.weights > 0).any()))


@dataclasses.dataclass(frozen=True)
class CanvasPrediction:
    """The model's prediction for a whole canvas, put together from windows.

    Attributes:
        unet: the denoiser.
        layout: where the windows are.
        conditions: of the canvas.
        guidance_interval: in which steps there is guidance; in the others the prompt alone conditions the model.
    """

    unet: "UNet2DConditionModel"
    layout: WindowLayout
    conditions: CanvasConditioning
    guidance_interval: Interval = ALWAYS

    def __call__(self, latents: Tensor, timestep: Tensor, step: int, steps: int) -> Tensor:
        """(B, L, H, W) scaled latents to the prediction of the same shape, float32."""
        prediction = torch.zeros_like(latents, dtype=torch.float32)
        guided = is_guided(self.guidance_interval, step, steps)
        for tile in self.layout.tiles(step, steps):
            columns = tile.columns.to(latents.device)
            condition = self.conditions.at(tile.columns)
            window = guided_prediction(
                self.unet, latents[..., columns], timestep, condition if guided else condition.unguided()
            )
            prediction.index_add_(-1, columns, window * tile.weights.to(latents.device))
        return prediction


def canvas_noise(
    shape: tuple[int, int],
    layout: WindowLayout,
    seeds: Sequence[int],
    *,
    starts: Sequence[int] = (0,),
    progress: Tensor | None = None,
    variation: float = 1.0,
) -> Tensor:
    """The noise that a canvas begins with.

    A station's first window, at its start, has the noise of a clip of the training width with its seed. Every further
    window's is ``variation`` of the arc away from that: at 0 the music goes on as it was, at 1 it is new. Between
    stations the noise goes along the arc from one to the next.

    Args:
        shape: (L, H), latent channels and rows.
        layout: of the canvas.
        seeds: K of them.
        starts: K latent columns where the stations' windows begin.
        progress: (W,) as in :class:`CanvasConditioning`; None is the first station everywhere.
        variation: 0 to 1.

    Returns:
        (1, L, H, W) float32.
    """
    rows = [_station_noise(shape, layout, seed, start, variation) for seed, start in zip(seeds, starts, strict=True)]
    if progress is None or len(rows) == 1:
        return rows[0]
    noise = torch.empty_like(rows[0])
    below = progress.floor().long().clamp(0, len(rows) - 1)
    for station, row in enumerate(rows):
        here = below == station
        following = rows[(station + 1) % len(rows)]
        between = slerp(row, following, (progress - station).clamp(0.0, 1.0).reshape(1, 1, 1, -1))
        noise[..., here] = between[..., here]
    return noise


def _station_noise(shape: tuple[int, int], layout: WindowLayout, seed: int, start: int, variation: float) -> Tensor:
    """(1, L, H, W): windows of one seed's noise, counted from ``start``."""
    generator = seeded_generator(seed)
    place = torch.arange(layout.width) - start
    block, inner = place.div(layout.window, rounding_mode="floor"), place % layout.window
    first = sample_noise((1, *shape, layout.window), generator=generator)
    noise = torch.empty(1, *shape, layout.width)
    # From the station's own window onwards, then those before it: a longer canvas begins like a shorter one.
    for number in sorted(block.unique().tolist(), key=lambda n: (n < 0, abs(n))):
        own = first
        if number:
            fresh = sample_noise(tuple(first.shape), generator=generator)
            own = fresh if variation == 1 else slerp(first, fresh, variation)
        here = block == number
        noise[..., here] = own[..., inner[here]]
    return noise
