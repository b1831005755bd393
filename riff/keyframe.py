"""A keyframe: what the music is at one place of a timeline, every value checked."""

import dataclasses
from typing import Literal, get_args

from riff.checks import BPM_RANGE, MAX_SEED, check_number, check_text
from riff.errors import RiffError
from riff.fields import show
from riff.music import canonical_keyscale
from riff.weighting import parse_prompt, parse_weights

Easing = Literal["linear", "smooth", "step"]

MAX_BARS = 512
MAX_SECONDS = 600.0


@dataclasses.dataclass(frozen=True)
class Keyframe:
    """What the music is at one place of a timeline.

    Attributes:
        prompt: what to play, at most 10,000 characters.
        bar: where, in bars from the start, 0..512; it may lie inside a bar. Exactly one of ``bar`` and ``seconds``.
        seconds: where, in seconds from the start, 0..600; the nearest beat is taken.
        negative_prompt: what to stay away from.
        seed: of the noise, 0..2^63-1; None is that of the keyframe before, and of the first the timeline's.
        guidance_scale: weight of the prompt, 0..50; None is the call's.
        lora_weight: of the LoRA that is loaded, 0..2; None is the call's.
        bpm: tempo in beats per minute, 20..400; None is the prompt's or that of the keyframe before.
        keyscale: key as in ``"F# minor"``; None leaves it open.
        easing: how the music goes to this keyframe from the one before: ``"linear"``, ``"smooth"``, or ``"step"``,
            which stays until the keyframe and jumps.
        hold: bars, 0..512, that it stays as it is before the way to the next keyframe begins.

    Raises:
        RiffError: a value is out of range or of another kind.
    """

    prompt: str
    bar: float | None = None
    seconds: float | None = None
    negative_prompt: str = ""
    seed: int | None = None
    guidance_scale: float | None = None
    lora_weight: float | None = None
    bpm: float | None = None
    keyscale: str | None = None
    easing: Easing = "smooth"
    hold: float = 0.0

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt"):
            if not isinstance(getattr(self, name), str):
                raise RiffError(f"{name} is {show(getattr(self, name))}; use text (in YAML, put it in quotes)")
            check_text(getattr(self, name), name)
        parse_weights(self.negative_prompt, "negative_prompt")
        if not any(clause.text.strip() for clause in parse_prompt(self.prompt)):
            raise RiffError('prompt is empty; say what to play, e.g. "mellow jazz"')
        check_one_of("bar", self.bar, "seconds", self.seconds, "say where the keyframe is")
        ranges: dict[str, tuple[float, float]] = {
            "bar": (0, MAX_BARS),
            "seconds": (0, MAX_SECONDS),
            "guidance_scale": (0, 50),
            "lora_weight": (0, 2),
            "bpm": BPM_RANGE,
        }
        for name, (low, high) in ranges.items():
            if getattr(self, name) is not None:
                check_number(getattr(self, name), name, low, high)
        check_number(self.hold, "hold", 0, MAX_BARS)
        if self.seed is not None:
            check_number(self.seed, "seed", 0, MAX_SEED, whole=True)
        if self.keyscale is not None:
            canonical_keyscale(self.keyscale)
        if self.easing not in get_args(Easing):
            raise RiffError(f"easing is {show(self.easing)}; use {', '.join(get_args(Easing))}")

    @property
    def where(self) -> str:
        """The place in words, ``"bar 4"`` or ``"12.5 s"``."""
        return f"bar {self.bar:g}" if self.bar is not None else f"{self.seconds:g} s"


def check_one_of(name: str, value: object, other: str, another: object, why: str) -> None:
    """Raise RiffError unless exactly one of two fields is given."""
    if (value is None) == (another is None):
        given = "neither is given" if value is None else f"{name} is {show(value)} and {other} {show(another)}"
        raise RiffError(f"{given}; {why} with exactly one of {name} and {other}")
