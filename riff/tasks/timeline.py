"""Timelines: prompts, tempo and key at given bars, and how the music goes from one to the next; YAML and JSON files."""

import bisect
import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from riff.tasks.requests import (
    MAX_SECONDS,
    OLD_NAMES,
    Bars,
    Bpm,
    Duration,
    Easing,
    Guidance,
    Key,
    KeyframeBar,
    KeyframeSecond,
    LoraWeight,
    NegativePrompt,
    Prompt,
    Seed,
    Share,
)
from riff.utils.errors import RiffError
from riff.utils.schema import accept_old_names, check_value, rename, validate
from riff.utils.validation import check_fields, non_default_fields, read_fields, show, write_fields

MAX_KEYFRAMES = 256
JUMP = 2.0**-20  # beats over which a tempo jumps: a millionth, and exact in binary
NEAREST = 2.0**-4  # beats between keyframes, at least
EXAMPLE = 'for example {"bars": 8, "keyframes": [{"bar": 0, "prompt": "church bells"}, {"bar": 4, "prompt": "techno"}]}'


@accept_old_names(OLD_NAMES)
@dataclasses.dataclass(frozen=True)
class Keyframe:
    """What the music is at one place of a timeline.

    Attributes:
        prompt: what to play, at most 10,000 characters.
        bar: where, in bars from the start, 0..512; it may lie inside a bar. Exactly one of ``bar`` and ``seconds``.
        seconds: where, in seconds from the start, 0..600; the nearest beat is taken.
        negative_prompt: what to stay away from; if empty, the call's.
        seed: of the noise, 0..2^63-1; None is that of the keyframe before, and of the first the timeline's.
        guidance_scale: weight of the prompt, 0..50; None is the call's.
        lora_weight: of the LoRA that is loaded, 0..2; None is the call's.
        bpm: tempo in beats per minute, 20..400; None is the prompt's or that of the keyframe before.
        key: as in ``"F# minor"``; None leaves it open.
        easing: how the music goes to this keyframe from the one before: ``"linear"``, ``"smooth"``, or ``"step"``,
            which stays until the keyframe and jumps.
        hold: bars, 0..512, that it stays as it is before the way to the next keyframe begins.

    Raises:
        RiffError: a value is out of range or of another kind.
    """

    prompt: Prompt
    bar: KeyframeBar | None = None
    seconds: KeyframeSecond | None = None
    negative_prompt: NegativePrompt = ""
    seed: Seed | None = None
    guidance_scale: Guidance | None = None
    lora_weight: LoraWeight | None = None
    bpm: Bpm | None = None
    key: Key | None = None
    easing: Easing = "smooth"
    hold: KeyframeBar = 0.0

    def __post_init__(self) -> None:
        validate(self)
        check_one_of("bar", self.bar, "seconds", self.seconds, "say where the keyframe is")

    @property
    def where(self) -> str:
        """The place in words, ``"bar 4"`` or ``"12.5 s"``."""
        return f"bar {self.bar:g}" if self.bar is not None else f"{self.seconds:g} s"


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Keyframes and a length.

    Attributes:
        keyframes: 1 to 256 of them, in order, the first at 0 and the last before the end.
        bars: length in bars, 1..512. Exactly one of ``bars`` and ``seconds``; at most 600 s in either.
        seconds: length in seconds, 0.1..600, rounded up to a whole number of bars.
        loop: whether the end leads back into the first keyframe, by that one's easing.
        seed: of keyframes that have none, 0..2^63-1; None is the call's.
        variation: how much of the noise is new from one training width to the next, 0..1.
        beats_per_bar: 3 or 4; None is what the first prompt says.

    Raises:
        RiffError: a value is out of range or of another kind, or keyframes are not in order.
    """

    keyframes: tuple[Keyframe, ...]
    bars: Bars | None = None
    seconds: Duration | None = None
    loop: bool = False
    seed: Seed | None = None
    variation: Share = 0.25
    beats_per_bar: Literal[3, 4] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.keyframes, (tuple, list)) or not all(isinstance(k, Keyframe) for k in self.keyframes):
            raise RiffError(f"keyframes are {show(self.keyframes)}; use a tuple of Keyframe")
        object.__setattr__(self, "keyframes", tuple(self.keyframes))
        if not 1 <= len(self.keyframes) <= MAX_KEYFRAMES:
            raise RiffError(f"there are {len(self.keyframes)} keyframes; use 1 to {MAX_KEYFRAMES}")
        validate(self)
        check_one_of("bars", self.bars, "seconds", self.seconds, "say how long the music is")
        self._check_order()

    def _check_order(self) -> None:
        """Refuse what is out of order whatever the tempo; the rest shows when the timeline is placed."""
        first = self.keyframes[0]
        if first.bar or first.seconds:
            raise RiffError(f"keyframe 1 is at {first.where}; put the first at 0, where the music begins")
        for unit, length in (("bar", self.bars), ("seconds", self.seconds)):
            numbered = [(n, getattr(k, unit)) for n, k in enumerate(self.keyframes, 1) if getattr(k, unit) is not None]
            for (n, before), (m, after) in itertools.pairwise(numbered):
                if after <= before:
                    raise RiffError(f"keyframe {m} is at {unit} {after:g}, not after keyframe {n} at {before:g}")
            if numbered and length is not None and numbered[-1][1] >= length:
                number, place = numbered[-1]
                raise RiffError(f"keyframe {number} is at {unit} {place:g}, but the music ends at {length:g}")
        last = self.bars if self.loop else None
        ends = [k.bar for k in self.keyframes[1:]] + [last]
        for number, (frame, end) in enumerate(zip(self.keyframes, ends, strict=True), 1):
            if frame.bar is not None and end is not None and frame.bar + frame.hold > end + 1e-9:
                room = end - frame.bar
                raise RiffError(
                    f"keyframe {number} holds {frame.hold:g} bars, but the next is {room:g} on; hold it less"
                )

    @classmethod
    def from_dict(cls, fields: Any) -> Self:
        """The inverse of :meth:`to_dict`; fields that are left out take their default.

        Raises:
            RiffError: anything else; the message names the keyframe, counted from 1, and the field.
        """
        check_fields(fields, cls, what="a timeline", example=EXAMPLE)
        rows = fields.get("keyframes")
        if not isinstance(rows, (list, tuple)):
            raise RiffError(f"keyframes are {show(rows)}; give a list, {EXAMPLE}")
        if len(rows) > MAX_KEYFRAMES:
            raise RiffError(f"there are {len(rows)} keyframes; use 1 to {MAX_KEYFRAMES}")
        return cls(**{**fields, "keyframes": tuple(_keyframe(number, row) for number, row in enumerate(rows, 1))})

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values, without those that have their default."""
        return {**non_default_fields(self), "keyframes": [non_default_fields(keyframe) for keyframe in self.keyframes]}

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a timeline from a .yaml, .yml or .json file of at most 1 MB.

        Raises:
            RiffError: the file cannot be read or holds no timeline; the message names file, keyframe and field.
        """
        fields = read_fields(path, what="a timeline")
        try:
            return cls.from_dict(fields)
        except RiffError as error:
            raise RiffError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write the timeline to a .yaml, .yml or .json file, wholly or not at all.

        Raises:
            RiffError: another suffix.
            RiffError, SystemProblem: as in :func:`riff.utils.files.atomic_path`.
        """
        write_fields(path, self.to_dict(), what="a timeline")


@dataclasses.dataclass(frozen=True)
class Placed:
    """A timeline on the beats.

    Attributes:
        beats: where each of the K keyframes is, increasing, the first at 0.
        holds: beats that it stays as it is.
        easings: how the music goes to it from the one before.
        total: length in beats, a whole number of bars.
        tempo: (beat, beats per minute), increasing, for :meth:`riff.spectrogram.tempo.TempoMap.glide`. Where the tempo
            jumps, two knots are :data:`JUMP` beats apart.
        loop: whether the end leads back into the first keyframe.
    """

    beats: tuple[float, ...]
    holds: tuple[float, ...]
    easings: tuple[Easing, ...]
    total: float
    tempo: tuple[tuple[float, float], ...]
    loop: bool


def place(timeline: Timeline, bpms: Sequence[float], beats_per_bar: int) -> Placed:
    """Put a timeline on the beats.

    The tempo stays during a hold and then goes evenly in beats to the next keyframe's, or jumps there if that one's
    easing is ``"step"`` (or if the hold lasts until then). A loop's goes back to the first one's by its end. A
    keyframe in seconds is put on the beat nearest to where that tempo gets to by then: ``d`` beats from ``b0`` to
    ``b1`` beats per minute last ``60 d ln(b1 / b0) / (b1 - b0)`` seconds.

    Args:
        timeline: keyframes and length.
        bpms: tempo of each keyframe in beats per minute, 20..400.
        beats_per_bar: 3 or 4.

    Raises:
        RiffError: in beats, keyframes are out of order, too near each other or past the end, a hold reaches past the
            next one, or the music is longer than 600 s.
    """
    frames, count = timeline.keyframes, len(timeline.keyframes)
    if len(bpms) != count:
        raise RiffError(f"there are {len(bpms)} tempi for {count} keyframes; give one for each")
    for bpm in bpms:
        check_value(bpm, Bpm, "bpm")
    holds = [frame.hold * beats_per_bar for frame in frames]
    beats, times, knots = [0.0], [0.0], [(0.0, float(bpms[0]))]
    for number in range(1, count):
        way = _Way(holds[number - 1], bpms[number - 1], bpms[number], frames[number].easing)
        if frames[number].bar is not None:
            distance = float(frames[number].bar) * beats_per_bar - beats[-1]  # type: ignore[arg-type]
        else:
            distance = round(beats[-1] + way.beats(float(frames[number].seconds or 0.0) - times[-1])) - beats[-1]
        _check_distance(number, frames[number], way, distance)
        knots += way.knots(beats[-1], distance)
        times.append(times[-1] + way.seconds(distance))
        beats.append(beats[-1] + distance)
    # After the last keyframe the music stays as it is; a loop's goes on to the first.
    way = _Way(math.inf, bpms[-1], bpms[-1], "linear")
    if timeline.loop:
        way = _Way(holds[-1], bpms[-1], bpms[0], frames[0].easing)
    total = _total(timeline, way, beats[-1], times[-1], beats_per_bar)
    if timeline.loop:
        _check_distance(count, None, way, total - beats[-1])
        knots += way.knots(beats[-1], total - beats[-1])
    elif beats[-1] >= total:
        raise RiffError(f"keyframe {count} is at {frames[-1].where}, but the music ends after {total:g} beats")
    length = times[-1] + way.seconds(total - beats[-1])
    # A length in seconds was checked before it was rounded up.
    if timeline.seconds is None and length > MAX_SECONDS + 1e-6:
        raise RiffError(f"{timeline.bars} bars last {length:.1f} s at these tempi; use at most {MAX_SECONDS:g} s")
    easings = tuple(frame.easing for frame in frames)
    return Placed(tuple(beats), tuple(holds), easings, total, tuple(knots), timeline.loop)


def progress(placed: Placed, columns: int, columns_per_beat: float) -> list[float]:
    """Between which keyframes each column is.

    Args:
        placed: a timeline with K keyframes on the beats.
        columns: how many there are; the first begins at beat 0.
        columns_per_beat: may be a fraction.

    Returns:
        ``columns`` numbers for the columns' centres: exactly k while keyframe k holds, and k + ease(s) at the share s
        of the way from there to the next one; K-1 after the last, or in a loop on to K, which is keyframe 0 again.
        Zeros where there is one keyframe only.
    """
    beats, last = placed.beats, len(placed.beats) - 1
    if last == 0:
        return [0.0] * columns
    ends = [*beats[1:], placed.total if placed.loop else math.inf]
    easings = [*placed.easings[1:], placed.easings[0]]
    found = []
    for column in range(columns):
        beat = (column + 0.5) / columns_per_beat
        index = bisect.bisect_right(beats, beat) - 1
        start, end = beats[index] + placed.holds[index], ends[index]
        if beat <= start or end == math.inf:
            found.append(float(index))
        else:
            found.append(index + ease(easings[index], min(1.0, (beat - start) / (end - start))))
    return found


def ease(kind: Easing, share: float) -> float:
    """How far the music is at a share of the way, both 0..1: s, or 3 s^2 - 2 s^3 (smooth), or 0 below 1 (step)."""
    if kind == "step":
        return float(share >= 1.0)
    return share if kind == "linear" else share * share * (3.0 - 2.0 * share)


@dataclasses.dataclass(frozen=True)
class _Way:
    """From one keyframe to the next: ``hold`` beats at the tempo ``before``, then evenly in beats to ``after``."""

    hold: float
    before: float
    after: float
    easing: Easing

    @property
    def _pace(self) -> float:
        """Seconds per beat on average after the hold."""
        if self.easing == "step" or self.before == self.after:
            return 60.0 / self.before
        return 60.0 * math.log(self.after / self.before) / (self.after - self.before)

    def seconds(self, beats: float) -> float:
        held = min(self.hold, beats)
        return held * 60.0 / self.before + (beats - held) * self._pace

    def beats(self, seconds: float) -> float:
        held = min(self.hold * 60.0 / self.before, seconds)
        return held * self.before / 60.0 + (seconds - held) / self._pace

    def knots(self, start: float, beats: float) -> list[tuple[float, float]]:
        """The tempo after ``start`` and up to ``start + beats``."""
        held, end = min(self.hold, beats), start + beats
        if self.easing == "step" or end - start - held < JUMP:
            return [(end - JUMP, float(self.before)), (end, float(self.after))]
        stays = [(start + held, float(self.before))] if held else []
        return [*stays, (end, float(self.after))]


def _check_distance(number: int, following: Keyframe | None, way: _Way, beats: float) -> None:
    """Refuse a way of ``beats`` beats after keyframe ``number`` that is too short, for its hold as well."""
    what = "the end of the loop" if following is None else f"keyframe {number + 1} (at {following.where})"
    if beats < NEAREST:
        raise RiffError(f"{what} is not at least {NEAREST:g} beat after keyframe {number}; move it or leave it out")
    if way.hold > beats + 1e-6:
        raise RiffError(f"keyframe {number} holds {way.hold:g} beats, but {what} is {beats:g} beats on; hold it less")


def _total(timeline: Timeline, way: _Way, beat: float, time: float, beats_per_bar: int) -> float:
    """Length in beats, of which the last keyframe is at ``beat`` and at ``time`` seconds."""
    if timeline.bars is not None:
        return float(timeline.bars * beats_per_bar)
    beats = beat + way.beats(float(timeline.seconds or 0.0) - time)
    return max(1.0, math.ceil(beats / beats_per_bar - 1e-6)) * beats_per_bar


def _keyframe(number: int, row: Any) -> Keyframe:
    try:
        if isinstance(row, dict):
            row = rename(row, OLD_NAMES)
        check_fields(row, Keyframe, what="it", example=EXAMPLE)
        if "prompt" not in row:
            raise RiffError("prompt is missing; say what to play")
        return Keyframe(**row)
    except RiffError as error:
        # YAML takes words such as no for something else than text.
        hint = str(error).replace("use text, in quotes", "use text (in YAML, put it in quotes)")
        raise RiffError(f"keyframe {number}: {hint}") from error


def check_one_of(name: str, value: object, other: str, another: object, why: str) -> None:
    """Raise RiffError unless exactly one of two fields is given."""
    if (value is None) == (another is None):
        given = "neither is given" if value is None else f"{name} is {show(value)} and {other} {show(another)}"
        raise RiffError(f"{given}; {why} with exactly one of {name} and {other}")
