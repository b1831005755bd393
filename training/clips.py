"""Reading the dataset that training/make_dataset.py wrote: pictures and the truth about each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riff.errors import RiffError


@dataclass(frozen=True)
class Clips:
    """Pictures of one split.

    Attributes:
        pictures: uint8, shape (n, M, W); a narrower picture (3/4) is followed by silence up to W.
        truths: one JSON object per picture, as training.composer.score.Truth plus seed, window and captions.
    """

    pictures: Tensor
    truths: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.truths)

    def columns(self, index: int) -> int:
        """Columns of a picture before the silence was added: two bars."""
        return self.pictures.shape[-1] * (6 if self.truths[index]["beats_per_bar"] == 3 else 8) // 8

    def picture(self, index: int) -> Tensor:
        """One picture without the added silence, float in [0, 1], shape (1, M, N)."""
        return self.pictures[index, None, :, : self.columns(index)].float() / 255.0

    def subset(self, indices: list[int]) -> Clips:
        """The clips at ``indices``, in that order."""
        return Clips(self.pictures[indices], [self.truths[index] for index in indices])


def load_clips(folder: str | Path, *, limit: int | None = None, width: int = 256) -> Clips:
    """Read the shards of one split, in order.

    Args:
        folder: holds ``pictures-*.npy`` and ``clips-*.jsonl`` of equal names.
        limit: read shards until there are this many clips; ``None`` reads all.
        width: columns to which narrower pictures are padded with silence.

    Returns:
        The clips; 4/4 and 3/4 are mixed in the order of the shards' numbers.

    Raises:
        RiffError: there is no shard, or a shard's two files do not agree.
    """
    folder = Path(folder)
    shards = sorted(folder.glob("pictures-*.npy"), key=lambda path: (path.stem.split("-")[-1], path.stem))
    if not shards:
        raise RiffError(f"no pictures-*.npy in {folder}; make them with python -m training.make_dataset --out DIR")
    parts, truths = [], []
    for shard in shards:
        lines = (folder / f"clips-{shard.stem.removeprefix('pictures-')}.jsonl").read_text("utf-8").splitlines()
        pictures = np.load(shard)
        if len(pictures) != len(lines):
            raise RiffError(f"{shard} holds {len(pictures)} pictures and {len(lines)} truths; make it again")
        if not lines:
            continue
        parts.append(np.pad(pictures, ((0, 0), (0, 0), (0, width - pictures.shape[-1]))))
        truths += [json.loads(line) for line in lines]
        if limit is not None and len(truths) >= limit:
            break
    if not parts:
        raise RiffError(f"the shards in {folder} are empty; make them again with python -m training.make_dataset")
    return Clips(torch.from_numpy(np.concatenate(parts))[:limit], truths[:limit])
