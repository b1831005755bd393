"""Clips that are nearly copies of one another: a loop that repeats, a song that is there twice in two formats."""

import base64
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

ROWS, COLUMNS = 32, 32
RANGE = 50.0  # decibels below a clip's loudest cell that count; what is softer differs between two encodings
# Cosine from which two clips are one: copies through MP3 or Vorbis have 0.998, repeated bars 0.99,
# clips of different composed songs at most 0.45.
ALIKE = 0.99
_PART = 1024  # clips compared at once


def fingerprint(mel: Tensor) -> np.ndarray:
    """What is compared of a clip: 32 x 32 cells of its level, 0 at ``RANGE`` below the loudest, 255 at the loudest.

    Args:
        mel: (C, M, N) magnitudes; loudness does not matter.

    Returns:
        uint8, shape (1024,).
    """
    power = functional.adaptive_avg_pool2d(mel.float().square().mean(0, keepdim=True), (ROWS, COLUMNS))[0]
    level = 10.0 * torch.log10(power / power.max().clamp_min(1e-30) + 1e-12)
    return ((level / RANGE + 1.0).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy().reshape(-1)


def directions(prints: Iterable[str]) -> np.ndarray:
    """Fingerprints in base64 as vectors of length 1, whose products are how much clips resemble each other.

    Each row's mean over time is taken off by half: the timbre of a song is in all its clips.
    """
    cells = np.stack([np.frombuffer(base64.b64decode(text), dtype=np.uint8) for text in prints]).astype(np.float32)
    cells = cells.reshape(-1, ROWS, COLUMNS)
    cells = (cells - 0.5 * cells.mean(2, keepdims=True)).reshape(len(cells), -1)
    cells -= cells.mean(1, keepdims=True)
    return np.asarray(cells / np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def repeated(vectors: np.ndarray, *, alike: float = ALIKE) -> dict[int, int]:
    """Clips that resemble an earlier one that is kept, each with that one.

    Args:
        vectors: of :func:`directions`, shape (n, 1024), in the order in which clips are to be kept.
        alike: cosine from which two clips are one.

    Returns:
        Index of each repeated clip to the index of the kept clip it repeats.
    """
    found: dict[int, int] = {}
    kept = np.empty((len(vectors),), dtype=np.int64)
    count = 0
    for start in range(0, len(vectors), _PART):
        part = vectors[start : start + _PART]
        best, where = np.full(len(part), -1.0, dtype=np.float32), np.zeros(len(part), dtype=np.int64)
        for first in range(0, count, _PART):
            alikeness = part @ vectors[kept[first : min(first + _PART, count)]].T
            top = alikeness.argmax(1)
            value = alikeness[np.arange(len(part)), top]
            better = value > best
            best[better], where[better] = value[better], kept[first + top[better]]
        inside = part @ part.T
        fresh: list[int] = []
        for index in range(len(part)):
            if best[index] >= alike:
                found[start + index] = int(where[index])
                continue
            near = next((other for other in fresh if inside[index, other] >= alike), None)
            if near is not None:
                found[start + index] = start + near
                continue
            fresh.append(index)
        kept[count : count + len(fresh)] = start + np.array(fresh, dtype=np.int64)
        count += len(fresh)
    return found


def without_copies(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without those that are nearly copies of earlier ones of the same metre."""
    left: set[int] = set()
    for metre in {row["beats_per_bar"] for row in rows}:
        places = [index for index, row in enumerate(rows) if row["beats_per_bar"] == metre]
        left |= {places[index] for index in repeated(directions(rows[place]["print"] for place in places))}
    return [row for index, row in enumerate(rows) if index not in left]
