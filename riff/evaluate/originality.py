"""Are the clips new, and unlike each other? They are searched for among each other and in a training set."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from riff.evaluate.copies import (
    Index,
    Likeness,
    Match,
    Sketches,
    copies_of,
    copies_within,
    copy_figures,
    determinism,
    diversity,
    most_copied,
    sketch_figures,
    threshold,
)

if TYPE_CHECKING:
    from riff.evaluate.figures import Figure
    from riff.evaluate.measure import Measured


@dataclasses.dataclass(frozen=True)
class Search:
    """What each clip is most like; the lists of the training set are empty without one.

    Attributes:
        landmarks_within: by landmarks, among the other clips.
        sketches_within: by sketches, among the other clips.
        landmarks: by landmarks, in the training set.
        sketches: by sketches, in the training set.
        honest: the reference's clips by sketches, in the training set, but those that are in it: like it and no copies.
        trained_on: clips of the reference that are in the training set.
        names: of the training set's files.
    """

    landmarks_within: list[Match]
    sketches_within: list[Likeness]
    landmarks: list[Match]
    sketches: list[Likeness]
    honest: list[Likeness]
    trained_on: int
    names: list[str]

    def copied(self, number: int) -> str:
        """The training file that a clip is a copy of, by either measure; empty if it is none."""
        if not self.names:
            return ""
        match, likeness = self.landmarks[number], self.sketches[number]
        if match.copy:
            return self.names[match.index]
        return self.names[likeness.index] if likeness.similarity >= threshold(self.honest) else ""


def search(ours: list[Measured], training: list[Measured], theirs: list[Measured]) -> Search:
    """Look every clip up.

    Args:
        ours: the evaluated clips.
        training: the training set; may be empty.
        theirs: the reference; may be empty.
    """
    prints, sketches = [one.landmarks for one in ours], [one.sketch for one in ours]
    among = Sketches(sketches)
    within = [among.search(found, leave_out=number) for number, found in enumerate(sketches)]
    if not training:
        return Search(copies_within(prints), within, [], [], [], 0, [])
    index, trained = Index([one.landmarks for one in training]), Sketches([one.sketch for one in training])
    known = copies_of([one.landmarks for one in theirs], index)
    honest = [one for one, match in zip(theirs, known, strict=True) if not match.copy]
    return Search(
        copies_within(prints),
        within,
        copies_of(prints, index),
        [trained.search(found) for found in sketches],
        [trained.search(one.sketch) for one in honest],
        len(theirs) - len(honest),
        [one.path.name for one in training],
    )


def originality(
    ours: list[Measured], found: Search, generated: dict[str, np.ndarray], reference: dict[str, np.ndarray]
) -> tuple[list[Figure], list[str]]:
    """Figures and notes of the section.

    Args:
        ours: the evaluated clips.
        found: of :func:`search`.
        generated: features of the clips by embedding.
        reference: those of the reference; may be empty.
    """
    searched = bool(found.names)
    figures = [
        *(diversity(rows, reference.get(name), name) for name, rows in generated.items()),
        *copy_figures(found.landmarks_within, found.landmarks if searched else None),
        *sketch_figures(found.sketches_within, found.sketches if searched else None, found.honest),
        determinism([one.metadata for one in ours], [one.digest for one in ours]),
    ]
    notes = [f"{len(found.names)} clips of the training set were searched."] if searched else []
    if found.trained_on:
        notes.append(
            f"Clips of the reference that are in the training set, which flatters a model: {found.trained_on}."
        )
    copied = most_copied(found.landmarks)[:5]
    if copied:
        notes.append(f"Copied most: {', '.join(f'{found.names[index]} ({times})' for index, times in copied)}.")
    return figures, notes
