"""Tempo maps: beats to seconds and back, for music that speeds up, slows down or drifts as a player does."""

from __future__ import annotations

import dataclasses
import itertools
import math
import numbers
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from riff.utils.errors import RiffError
from riff.utils.validation import BPM_RANGE

if TYPE_CHECKING:
    from torch import Tensor


@dataclasses.dataclass(frozen=True)
class TempoMap:
    """A strictly increasing map from beats to seconds, which are counted from beat 0.

    It is made of pieces in which the tempo is linear in beats; the first and the last go on for ever. Make one with
    :meth:`constant`, :meth:`glide` or :meth:`from_beats`.

    Attributes:
        beats: where each piece starts; the first piece holds before its start as well.
        seconds: the time there.
        tempi: beats per minute there.
        slopes: beats per minute per beat in each piece.
    """

    beats: tuple[float, ...]
    seconds: tuple[float, ...]
    tempi: tuple[float, ...]
    slopes: tuple[float, ...]

    @classmethod
    def constant(cls, bpm: float) -> TempoMap:
        """One tempo, 20 to 400 beats per minute.

        Raises:
            RiffError: no such tempo.
        """
        return cls((0.0,), (0.0,), (_checked_tempo(bpm),), (0.0,))

    @classmethod
    def glide(cls, knots: Iterable[tuple[float, float]]) -> TempoMap:
        """A tempo that moves evenly in beats from knot to knot, and stays as it is before the first and after the last.

        Args:
            knots: (beat, beats per minute), at least one; beats finite and increasing, tempi 20 to 400.

        Raises:
            RiffError: anything else.
        """
        try:
            pairs = [(beat, bpm) for beat, bpm in knots]
        except (TypeError, ValueError):
            raise RiffError(f"a glide is {knots!r}; use pairs of a beat and its tempo") from None
        if not pairs:
            raise RiffError("a glide has no knot; give at least one pair of a beat and its tempo")
        beats = _increasing([beat for beat, _ in pairs], "a glide's beats")
        tempi = [_checked_tempo(bpm) for _, bpm in pairs]
        if len(set(tempi)) == 1:
            return cls.constant(tempi[0])
        steps = [after - before for before, after in itertools.pairwise(beats)]
        slopes = [(after - before) / step for before, after, step in zip(tempi, tempi[1:], steps, strict=False)]
        seconds = [0.0]
        for before, slope, step in zip(tempi, slopes, steps, strict=False):
            # The integral of 60 / tempo over the piece.
            seconds.append(
                seconds[-1] + (60.0 / slope * math.log1p(slope * step / before) if slope else 60.0 / before * step)
            )
        found = cls((beats[0], *beats), (0.0, *seconds), (tempi[0], *tempi), (0.0, *slopes, 0.0))
        start = float(found.seconds_at(0.0))
        return dataclasses.replace(found, seconds=tuple(second - start for second in found.seconds))

    @classmethod
    def from_beats(cls, times: Iterable[float]) -> TempoMap:
        """The map of tracked beats: time is linear between two beats, and goes on as the outer intervals do.

        Args:
            times: when each beat was, in seconds; at least two, finite and increasing. The first is beat 0, and
                seconds are counted from it.

        Raises:
            RiffError: anything else.
        """
        tracked = _increasing(times, "beat times")
        if len(tracked) < 2:
            raise RiffError(f"{len(tracked)} beat time is no tempo; give at least 2")
        tempi = [60.0 / (after - before) for before, after in itertools.pairwise(tracked)]
        count = len(tempi)
        return cls(
            tuple(float(beat) for beat in range(count)),
            tuple(time - tracked[0] for time in tracked[:-1]),
            tuple(tempi),
            (0.0,) * count,
        )

    @classmethod
    def from_dict(cls, fields: Any) -> TempoMap:
        """The inverse of :meth:`to_dict`.

        Raises:
            RiffError: not what that gives.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        rows: list[Any] = [fields.get(name) for name in names] if isinstance(fields, dict) else []
        if not rows or not all(isinstance(row, (list, tuple)) and row and all(map(_is_number, row)) for row in rows):
            raise RiffError(f"a tempo map is an object with the lists of numbers {', '.join(names)}")
        beats, seconds, tempi, slopes = (tuple(float(number) for number in row) for row in rows)
        in_order = list(beats) == sorted(beats) and list(seconds) == sorted(seconds)
        if len({len(row) for row in rows}) > 1 or not in_order or min(tempi) <= 0.0:
            raise RiffError("a tempo map's lists must be equally long, its times in order and its tempi above 0")
        return cls(beats, seconds, tempi, slopes)

    def to_dict(self) -> dict[str, list[float]]:
        """The pieces as plain JSON values."""
        return {name: list(row) for name, row in dataclasses.asdict(self).items()}

    @property
    def steady(self) -> float | None:
        """The tempo in beats per minute where there is but one, else None."""
        return self.tempi[0] if len(self.beats) == 1 else None

    def starting_at(self, beat: float) -> TempoMap:
        """The same map with beats and seconds counted from ``beat``."""
        start = float(self.seconds_at(beat))
        return dataclasses.replace(
            self,
            beats=tuple(each - beat for each in self.beats),
            seconds=tuple(each - start for each in self.seconds),
        )

    def seconds_at(self, beats: Tensor | float) -> Tensor:
        """When beats are: a tensor of any shape, or one number, to float64 seconds."""
        since, tempo, slope, start = self._in_piece(beats, self.beats, self.seconds)
        growth = slope * since / tempo
        return start + since * 60.0 / tempo * _ratio(growth.log1p(), growth)

    def beats_at(self, seconds: Tensor | float) -> Tensor:
        """Which beats are sounding: the inverse of :meth:`seconds_at`, float64."""
        since, tempo, slope, start = self._in_piece(seconds, self.seconds, self.beats)
        growth = slope * since / 60.0
        return start + since * tempo / 60.0 * _ratio(growth.expm1(), growth)

    def bpm_at(self, beats: Tensor | float) -> Tensor:
        """The tempo at beats, in beats per minute, float64."""
        since, tempo, slope, _ = self._in_piece(beats, self.beats, self.seconds)
        return tempo + slope * since

    def _in_piece(
        self, places: Tensor | float, starts: tuple[float, ...], others: tuple[float, ...]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """How far places lie into their pieces; those pieces' tempo, slope and start on the other axis."""
        import torch

        place = torch.as_tensor(places, dtype=torch.float64)
        table = torch.tensor([starts, self.tempi, self.slopes, others], dtype=torch.float64, device=place.device)
        piece = (torch.searchsorted(table[0], place.contiguous(), right=True) - 1).clamp(min=0)
        start, tempo, slope, other = table[:, piece]
        return place - start, tempo, slope, other


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Their quotient, whose limit is 1 where both are 0."""
    return above.where(below != 0.0, 1.0) / below.where(below != 0.0, 1.0)


def _checked_tempo(bpm: float) -> float:
    if not _is_number(bpm) or not BPM_RANGE[0] <= bpm <= BPM_RANGE[1]:
        raise RiffError(f"a tempo is {bpm!r}; use {BPM_RANGE[0]:g} to {BPM_RANGE[1]:g} beats per minute")
    return float(bpm)


def _increasing(values: Iterable[float], what: str) -> list[float]:
    try:
        found = list(values)
    except TypeError:
        raise RiffError(f"{what} are {values!r}; use increasing numbers") from None
    if not all(_is_number(number) for number in found):
        raise RiffError(f"{what} hold {next(n for n in found if not _is_number(n))!r}; use finite numbers")
    for before, after in itertools.pairwise(found):
        if not before < after:
            raise RiffError(f"{what} must increase, but {after:g} follows {before:g}")
    return [float(number) for number in found]


def _is_number(value: object) -> bool:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and -1e15 < value < 1e15  # type: ignore[operator]
