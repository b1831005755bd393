"""Images in riff's own arrays, as ``training.recipes.dataset`` writes them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riff.spectrogram.config import SpectrogramConfig
from riff.utils.errors import RiffError


@dataclasses.dataclass
class ImageSet:
    """Images of one width and the truth about each.

    Attributes:
        pixels: (n, C * M, N) uint8, row 0 the highest frequency, 255 the image value 1.
        clips: one mapping per image; ``captions`` holds its captions.
        channels: C, 1 mono or 2 stereo.
    """

    pixels: Tensor
    clips: list[dict[str, Any]]
    channels: int = 1

    def __len__(self) -> int:
        return len(self.clips)

    def images(self, indices: Tensor) -> Tensor:
        """The images at ``indices`` as (B, C, M, N) float32 in [0, 1]."""
        return self.pixels[indices].float().div_(255.0).unflatten(1, (self.channels, -1))

    def caption(self, index: int, choice: int) -> str:
        """One of the clip's captions; ``choice`` may be any whole number."""
        captions = self.clips[index]["captions"]
        return str(captions[choice % len(captions)])


def load_image_sets(folder: str | Path, *, limit: int | None = None) -> tuple[list[ImageSet], SpectrogramConfig]:
    """Read a folder of shards that ``training.recipes.dataset`` wrote.

    Args:
        folder: holds ``pictures-*.npy`` and ``clips-*.jsonl``; the config is there or one folder up.
        limit: at most so many images of each width.

    Returns:
        One set per image width, the widest first, and the config of all of them.

    Raises:
        RiffError: no shards, or a shard whose images and clips disagree.
    """
    folder = Path(folder)
    by_width: dict[int, list[tuple[np.ndarray, list[dict[str, Any]]]]] = {}
    for path in sorted(folder.glob("pictures-*.npy")):
        pixels = np.load(path, allow_pickle=False)
        lines = path.with_name(path.name.replace("pictures-", "clips-")).with_suffix(".jsonl").read_text("utf-8")
        clips = [json.loads(line) for line in lines.splitlines()]
        if len(clips) != len(pixels):
            raise RiffError(f"{path} has {len(pixels)} images but {len(clips)} clips; delete it and make it again")
        if clips:
            by_width.setdefault(pixels.shape[-1], []).append((pixels, clips))
    if not by_width:
        raise RiffError(f"{folder} holds no pictures-*.npy shards; make them with python -m training.recipes.dataset")
    config = SpectrogramConfig.load(folder if (folder / "spectrogram_config.json").exists() else folder.parent)
    sets = []
    for _, shards in sorted(by_width.items(), reverse=True):
        pixels = torch.from_numpy(np.concatenate([shard for shard, _ in shards])[:limit])
        clips = [clip for _, clips in shards for clip in clips][:limit]
        sets.append(ImageSet(pixels, clips, config.channels))
    return sets, config
