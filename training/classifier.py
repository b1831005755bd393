"""Composed clips as lessons for riff's tagger: which classes there are, and which are true of each clip."""

from __future__ import annotations

import torch
from torch import Tensor

from riff.evaluate import KEYS
from riff.tagger_net import Labels
from training.clips import Clips


def labels_of(clips: Clips) -> Labels:
    """The classes that occur in ``clips``."""
    return Labels(
        genres=tuple(sorted({truth["genre"] for truth in clips.truths})),
        instruments=tuple(sorted({name for truth in clips.truths for name in truth["instruments"]})),
        leads=tuple(sorted({truth["lead"] for truth in clips.truths if truth["lead"]})),
    )


def targets(clips: Clips, labels: Labels) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Genre (n,), instruments (n, I) in {0, 1}, lead (n,) with -100 where there is none, key (n,)."""
    instruments = torch.zeros(len(clips), len(labels.instruments))
    place = {name: index for index, name in enumerate(labels.instruments)}
    for row, truth in enumerate(clips.truths):
        for name in truth["instruments"]:
            if name in place:
                instruments[row, place[name]] = 1.0
    genre = torch.tensor([labels.genres.index(truth["genre"]) for truth in clips.truths])
    leads = {name: index for index, name in enumerate(labels.leads)}
    lead = torch.tensor([leads.get(truth["lead"], -100) for truth in clips.truths])
    return genre, instruments, lead, torch.tensor([KEYS.index(truth["keyscale"]) for truth in clips.truths])
