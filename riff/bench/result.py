"""What a benchmark found: ratios first, then figures, section by section."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Figure = float | int | str | None
Figures = dict[str, Figure]


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How many times something is faster, or what share of memory it takes.

    Attributes:
        name: for machines, such as ``"sound_speed"``.
        meaning: for people; it reads on after the number.
        value: median over the pairs.
        low: the smallest of them.
        high: the largest of them.
        pairs: measurements taken in turn; 1 where each side was measured once.
        times: whether it is a multiple ("2.0x"), else a share of something ("0.50").
        processor: the same by processor time of all threads, which other programs disturb less; None if not measured.
    """

    name: str
    meaning: str
    value: float
    low: float
    high: float
    pairs: int = 1
    times: bool = True
    processor: float | None = None

    @classmethod
    def of(
        cls, name: str, meaning: str, values: Sequence[float], *, times: bool = True, processor: Sequence[float] = ()
    ) -> Ratio:
        """The ratio of some pairs."""
        work = statistics.median(processor) if processor else None
        return cls(name, meaning, statistics.median(values), min(values), max(values), len(values), times, work)

    def line(self) -> str:
        """Such as ``"39.1x  as fast as ..., picture to sound (37.2 to 40.0 in 3 pairs)"``."""
        shown = f"{_short(self.value)}x" if self.times else _short(self.value)
        spread = f" ({_short(self.low)} to {_short(self.high)} in {self.pairs} pairs)" if self.pairs > 1 else ""
        work = "" if self.processor is None else f", {_short(self.processor)}x by processor time"
        return f"{shown:>7}  {self.meaning}{spread}{work}"


@dataclasses.dataclass(frozen=True)
class Section:
    """One thing that was measured.

    Attributes:
        name: of :data:`riff.bench.SECTIONS`.
        ratios: against others, from the same run.
        figures: seconds (``*_s``), mebibytes (``*_mib``) and others by name; None was not measured.
        notes: what has to be known to read them, or why there are none; one sentence each.
        seconds: that the measuring took.
    """

    name: str
    ratios: list[Ratio] = dataclasses.field(default_factory=list)
    figures: Figures = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Bench:
    """All of it.

    Attributes:
        version: of riff.
        when: ISO 8601, UTC.
        machine: as :func:`riff.bench.machine.describe_machine` tells it.
        settings: what was asked for.
        sections: in the order in which they were measured.
        seconds: that it took.
    """

    version: str
    when: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    sections: list[Section]
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON, ratios first."""
        return {
            "riff": self.version,
            "when": self.when,
            "ratios": {ratio.name: dataclasses.asdict(ratio) for ratio in self._ratios()},
            "sections": {
                section.name: {"figures": section.figures, "notes": section.notes, "seconds": round(section.seconds, 1)}
                for section in self.sections
            },
            "machine": self.machine,
            "settings": self.settings,
            "seconds": round(self.seconds, 1),
        }

    def lines(self) -> Iterator[str]:
        """A table for a terminal: machine, ratios, then figures and notes by section."""
        yield f"riff {self.version} on {describe(self.machine)}"
        yield ""
        yield from (ratio.line() for ratio in self._ratios())
        for section in self.sections:
            yield ""
            yield f"{section.name}, measured in {section.seconds:.0f} s"
            width = max((len(name) for name in section.figures), default=0)
            for name, value in section.figures.items():
                yield f"  {name.ljust(width)}  {show(value)}"
            yield from (f"  ({note})" for note in section.notes)

    def _ratios(self) -> Iterator[Ratio]:
        for section in self.sections:
            yield from section.ratios


def show(value: Figure) -> str:
    """A figure as text: three decimals; "not measured" for None."""
    if value is None:
        return "not measured"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def describe(machine: Mapping[str, Any]) -> str:
    """A machine in one line, and whether others were using it."""
    counts = [f"{machine[name]} {name if machine[name] != 1 else name[:-1]}" for name in ("cores", "threads")]
    parts = [str(machine["processor"]), *counts]
    if machine.get("accelerator"):
        parts.append(str(machine["accelerator"]))
    if machine.get("noisy"):
        parts.append("NOISY: others were using it, trust the ratios by processor time")
    return ", ".join(parts)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
