"""A set of captioned spectrogram pictures: shards of pictures beside shards of what is known about each clip."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riff.config import SpectrogramConfig
from riff.errors import RiffError


@dataclasses.dataclass
class PictureSet:
    """Pictures of one width and the truth about each.

    Attributes:
        pictures: (n, C * M, N) uint8, row 0 the highest frequency, 255 the image value 1.
        clips: one mapping per picture; ``captions`` holds its captions.
    """

    pictures: Tensor
    clips: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.clips)

    def images(self, indices: Tensor) -> Tensor:
        """The pictures at ``indices`` as (B, 1, M, N) float32 in [0, 1]."""
        return self.pictures[indices].float().div_(255.0)[:, None]

    def caption(self, index: int, choice: int) -> str:
        """One of the clip's captions; ``choice`` may be any whole number."""
        captions = self.clips[index]["captions"]
        return str(captions[choice % len(captions)])


def load_picture_sets(folder: str | Path, *, limit: int | None = None) -> tuple[list[PictureSet], SpectrogramConfig]:
    """Read a folder of shards that ``training.make_dataset`` wrote.

    Args:
        folder: holds ``pictures-*.npy`` and ``clips-*.jsonl``; the config lies there or one folder up.
        limit: at most so many pictures of each width.

    Returns:
        One set per picture width, the widest first, and the config of all of them.

    Raises:
        RiffError: no shards, or a shard whose pictures and clips disagree.
    """
    folder = Path(folder)
    by_width: dict[int, list[tuple[np.ndarray, list[dict[str, Any]]]]] = {}
    for path in sorted(folder.glob("pictures-*.npy")):
        pictures = np.load(path, allow_pickle=False)
        lines = path.with_name(path.name.replace("pictures-", "clips-")).with_suffix(".jsonl").read_text("utf-8")
        clips = [json.loads(line) for line in lines.splitlines()]
        if len(clips) != len(pictures):
            raise RiffError(f"{path} has {len(pictures)} pictures but {len(clips)} clips; delete it and make it again")
        if clips:
            by_width.setdefault(pictures.shape[-1], []).append((pictures, clips))
    if not by_width:
        raise RiffError(f"{folder} holds no pictures-*.npy shards; make them with python -m training.make_dataset")
    sets = []
    for _, shards in sorted(by_width.items(), reverse=True):
        pictures = torch.from_numpy(np.concatenate([shard for shard, _ in shards])[:limit])
        sets.append(PictureSet(pictures, [clip for _, clips in shards for clip in clips][:limit]))
    config_folder = folder if (folder / "spectrogram_config.json").exists() else folder.parent
    return sets, SpectrogramConfig.load(config_folder)
