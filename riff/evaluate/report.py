"""The result of an evaluation: figures in sections, clips with what was measured of each, unreadable files."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from riff import __version__
from riff.evaluate.figures import Figure


@dataclasses.dataclass(frozen=True)
class Section:
    """Figures that belong together.

    Attributes:
        title: such as "Obedience".
        figures: in the order in which they are shown.
        notes: what has to be known to read them, or why there are none; one sentence each.
    """

    title: str
    figures: list[Figure]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass
class ClipRow:
    """One clip of the evaluated folder.

    Attributes:
        name: its path inside the folder.
        path: where it is.
        asked: what it should be (prompt, bpm, keyscale, genre); empty where that is not known.
        values: what was measured, by name; NaN where it cannot be measured.
        score: 0..1, the better the higher; NaN if nothing says how good it is.
        reasons: what counted for the score, in words.
    """

    name: str
    path: str
    asked: dict[str, str] = dataclasses.field(default_factory=dict)
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    score: float = math.nan
    reasons: tuple[str, ...] = ()


@dataclasses.dataclass
class Evaluation:
    """All of it.

    Attributes:
        title: name of the evaluated folder.
        sections: figures.
        clips: of the evaluated folder, the best first.
        reference: per-clip values of the reference, for plots.
        maps: embedding to places of all clips on its two main axes, ``{"generated": [[x, y], ...], "reference": ...}``.
        problems: files that could not be used, one line each.
        settings: what was evaluated, and with what.
        seconds: that it took.
    """

    title: str
    sections: list[Section] = dataclasses.field(default_factory=list)
    clips: list[ClipRow] = dataclasses.field(default_factory=list)
    reference: list[dict[str, float]] = dataclasses.field(default_factory=list)
    maps: dict[str, dict[str, list[list[float]]]] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    @property
    def measured(self) -> bool:
        """Whether any figure has a value."""
        return any(math.isfinite(figure.value) for section in self.sections for figure in section.figures)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; what could not be measured is null."""
        sections = [
            {
                "title": section.title,
                "notes": list(section.notes),
                "figures": [dataclasses.asdict(figure) for figure in section.figures],
            }
            for section in self.sections
        ]
        whole = {
            "software": f"riff {__version__}",
            "title": self.title,
            "settings": self.settings,
            "sections": sections,
            "clips": [dataclasses.asdict(clip) for clip in self.clips],
            "problems": self.problems,
            "seconds": round(self.seconds, 2),
        }
        plain: dict[str, Any] = _plain(whole)
        return plain

    def lines(self) -> Iterator[str]:
        """The table for a terminal."""
        figures = [figure for section in self.sections for figure in section.figures]
        name = max((len(figure.name) for figure in figures), default=0)
        shown = [show_value(figure) for figure in figures]
        value = max((len(text) for text in shown), default=0)
        interval = max((len(show_interval(figure)) for figure in figures), default=0)
        for section in self.sections:
            yield section.title
            for figure in section.figures:
                columns = f"  {figure.name:<{name}}  {show_value(figure):>{value}}  {show_interval(figure):<{interval}}"
                yield f"{columns}  n = {figure.n}" if figure.n else columns.rstrip()
                if figure.detector:
                    yield f"    its detector is right about {figure.reliability}"
            yield from (f"  ({note})" for note in section.notes)
            yield ""
        if self.problems:
            yield f"{len(self.problems)} file{'s' if len(self.problems) > 1 else ''} could not be used"


def show_value(figure: Figure) -> str:
    """The value with its unit: "87.5 %", "-14.2 LUFS"; "not measured" for NaN."""
    if math.isnan(figure.value):
        return "not measured"
    number = _number(figure.value, figure.unit)
    return f"{number} {_UNITS.get(figure.unit, figure.unit)}".strip()


def show_interval(figure: Figure) -> str:
    """The 95 % interval: "69.0 to 95.7"; empty if there is none."""
    if not (math.isfinite(figure.low) and math.isfinite(figure.high)):
        return ""
    return f"{_number(figure.low, figure.unit)} to {_number(figure.high, figure.unit)}"


_UNITS = {"share": "%"}


def _number(value: float, unit: str) -> str:
    if unit == "share":
        value *= 100.0
        return f"{value:.0f}" if value in (0.0, 100.0) else f"{value:.1f}"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0 or abs(value) >= 1000:
        return f"{value:.0f}"
    # Three digits that count, but not in the form 1e-05 above a millionth.
    digits = max(0, min(6, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:.{digits}f}" if abs(value) >= 1e-6 else f"{value:.1e}"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(name): _plain(inside) for name, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inside) for inside in value]
    return value
