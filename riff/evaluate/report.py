"""The result of an evaluation: figures in sections, clips with what was measured of each, unreadable files."""

import dataclasses
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from riff.audio.channels import mix
from riff.audio.io import load_audio, save_audio
from riff.evaluate.figures import Figure
from riff.spectrogram.display import to_data_uri
from riff.tasks.gallery import read_card
from riff.utils.errors import RiffError
from riff.utils.files import write_text
from riff.utils.pages import render
from riff.version import __version__


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


# The report as one web page that needs nothing from elsewhere.

PLAYED = 6  # of the best clips, and of the worst
SECONDS = 20.0  # of each that are embedded
MOST_NAMES = 500  # in a list on the page; report.json has all
_RATE = 44100
_BINS = 24
_SCORE = (
    "The score is the mean of how well what was measured fits what was requested (tempo within 4 % at any octave, key, "
    "genre, instruments), of 0 for each fault (clipping, silence, a copy), and of how usual the clip is in the "
    "reference (0 to 1)."
)


def write_page(path: str | Path, result: Evaluation) -> Path:
    """Write the page, wholly or not at all.

    Args:
        path: the file.
        result: what is shown; the best and the worst of its clips are read again, to be played and seen.

    Raises:
        RiffError, SystemProblem: as in :func:`riff.utils.files.atomic_path`.
    """
    figures = [figure for section in result.sections for figure in section.figures]
    write_text(path, render(
        "evaluate/templates/evaluation.html",
        name=result.title,
        summary=list(_summary(result)),
        tiles=[_tile(figure) for figure in _highlights(result.sections)[:10]],
        sections=[{"title": section.title, "notes": section.notes, "rows": [_row(each) for each in section.figures],
                   "ladder": list(_ladder(section))} for section in result.sections],
        maps=list(_maps(result)),
        histograms=list(_histograms(result)),
        has_reference=bool(result.reference),
        players=list(_players(result.clips)),
        table=_table(result.clips),
        problems=result.problems[:MOST_NAMES],
        definitions=[(figure.name, figure.definition) for figure in figures if figure.definition],
    ))  # fmt: skip
    return Path(path)


def _summary(result: Evaluation) -> Iterator[str]:
    count = len(result.clips)
    if count:
        yield f"{count} clip{'' if count == 1 else 's'}"
    if result.settings.get("reference"):
        yield f"against {len(result.reference)} of {Path(result.settings['reference']).name}"
    if result.settings.get("round_trip"):
        yield f"round trip of {Path(result.settings['round_trip']).name}"
    if result.problems:
        yield f"{len(result.problems)} could not be used"


def _highlights(sections: list[Section]) -> list[Figure]:
    """The first figure of each section that has a value; of the obedience one of each kind."""
    chosen: list[Figure] = []
    for section in sections:
        measured = [figure for figure in section.figures if math.isfinite(figure.value)]
        kinds: dict[str, Figure] = {}
        for figure in measured if section.title == "Obedience" else measured[:1]:
            kinds.setdefault(figure.name.removeprefix("All ").split()[0].strip(",").lower(), figure)
        chosen += kinds.values()
    return chosen


def _tile(figure: Figure) -> dict[str, str]:
    interval = show_interval(figure)
    spread = f"95 %: {interval}" if interval else f"n = {figure.n}"
    return {"value": show_value(figure), "name": figure.name, "spread": spread}


def _row(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "definition": figure.definition,
        "detector": figure.reliability if figure.detector else "",
        "value": show_value(figure),
        "missing": not math.isfinite(figure.value),
        "interval": show_interval(figure),
        "bar": interval_bar(figure.value, figure.low, figure.high) if figure.unit == "share" else None,
        "n": figure.n,
    }


def _ladder(section: Section) -> Iterator[dict[str, Any]]:
    """The measures of the round trip, each with its rungs side by side."""
    measures: dict[str, list[tuple[str, float]]] = {}
    for figure in section.figures if section.title == "Round trip" else ():
        name, _, rung = figure.name.partition(", from ")
        title = f"{name} ({figure.unit})" if figure.unit else name
        measures.setdefault(title, []).append((rung, figure.value))
    for title, values in measures.items():
        largest = max((abs(value) for _, value in values if math.isfinite(value)), default=None)
        if largest is not None:
            bars = [(name, abs(value) / max(largest, 1e-12), _short(value) if math.isfinite(value) else "")
                    for name, value in values]  # fmt: skip
            yield {"title": title, "bars": bars}


def _maps(result: Evaluation) -> Iterator[dict[str, Any]]:
    """All clips on the two main axes of each embedding, as shares of the plot's width and height."""
    for name, places in result.maps.items():
        ours, theirs = places.get("generated", []), places.get("reference", [])
        points = np.array([*theirs, *ours], dtype=float).reshape(-1, 2)
        if len(ours) and np.isfinite(points).all():
            shares = ((points - points.min(0)) / np.maximum(np.ptp(points, axis=0), 1e-12)).tolist()
            yield {"title": f"clips by {name}", "note": "two main axes of all", "ours": shares[len(theirs) :],
                   "theirs": shares[: len(theirs)]}  # fmt: skip


def _histograms(result: Evaluation) -> Iterator[dict[str, Any]]:
    for name in dict.fromkeys(name for clip in result.clips for name in clip.values):
        ours = [clip.values.get(name, math.nan) for clip in result.clips]
        found = histogram(name, ours, [values.get(name, math.nan) for values in result.reference])
        if found:
            yield found


def histogram(title: str, ours: Sequence[float], theirs: Sequence[float] = ()) -> dict[str, Any] | None:
    """How a measurement is distributed over the clips and over the reference's.

    Args:
        title: with the unit.
        ours: one number of each clip; those that are not finite are left out.
        theirs: the same of the reference; may be empty.

    Returns:
        What the chart needs; None if there are fewer than two different numbers.
    """
    sets = [np.array([value for value in values if math.isfinite(value)]) for values in (ours, theirs)]
    every = np.concatenate(sets)
    if not len(sets[0]) or len(np.unique(every)) < 2:
        return None
    low, high = float(every.min()), float(every.max())
    counts = [np.histogram(values, bins=_BINS, range=(low, high))[0] / max(len(values), 1) for values in sets]
    tallest = max(float(count.max()) for count in counts)
    note = f"median {_short(float(np.median(sets[0])))}"
    if len(sets[1]):
        note += f", reference {_short(float(np.median(sets[1])))}"
    return {
        "title": title, "note": note, "low": _short(low), "high": _short(high),
        "ours": (counts[0] / tallest).tolist(), "theirs": (counts[1] / tallest).tolist() if len(sets[1]) else [],
    }  # fmt: skip


def interval_bar(value: float, low: float, high: float) -> dict[str, Any] | None:
    """What the bar of a share 0..1 with its 95 % interval needs; None if the share was not measured."""
    if not math.isfinite(value):
        return None
    return {"value": value, "low": low, "high": high, "bounded": math.isfinite(low) and math.isfinite(high)}


def _players(clips: list[ClipRow]) -> Iterator[dict[str, Any]]:
    """The best and the worst, if there is anything to tell them apart; else the first ones."""
    ranked = [clip for clip in clips if math.isfinite(clip.score)]
    if len({clip.score for clip in ranked}) < 2:
        if clips:
            yield {"title": "Some of the clips", "note": "", "cards": map(_card, clips[: 2 * PLAYED])}
        return
    count = min(PLAYED, len(ranked) // 2)
    yield {"title": "Best clips", "note": _SCORE, "cards": map(_card, ranked[:count])}
    yield {"title": "Worst clips", "note": "", "cards": map(_card, ranked[::-1][:count])}


def _card(clip: ClipRow) -> dict[str, Any]:
    card, sound = read_card(Path(clip.path)), ""
    problem = card.problem
    try:
        sound = "" if problem else _sound(Path(clip.path))
    except RiffError as error:
        problem = str(error)
    score = f"score {clip.score:.2f}" if math.isfinite(clip.score) else ""
    return {
        "title": clip.asked.get("prompt") or clip.name, "facts": [score, f"{card.seconds:.1f} s", *clip.reasons],
        "image": card.image, "sound": sound, "name": clip.name, "problem": problem,
    }  # fmt: skip


def _sound(path: Path) -> str:
    """The beginning of a clip as the text that stands in ``src``."""
    waveform, _ = load_audio(path, sample_rate=_RATE, duration=SECONDS)
    waveform = waveform if len(waveform) <= 2 else mix(waveform, 1)
    with tempfile.TemporaryDirectory() as folder:
        return to_data_uri(save_audio(Path(folder) / "clip.mp3", waveform, _RATE).read_bytes(), "audio/mpeg")


def _table(clips: list[ClipRow]) -> dict[str, Any]:
    columns = list(dict.fromkeys(name for clip in clips for name in clip.values))
    rows = []
    for clip in clips[:MOST_NAMES]:
        numbers = [clip.score, *(clip.values.get(name, math.nan) for name in columns)]
        cells = [f"{number:.4g}" if number == number else "" for number in numbers]
        rows.append((clip.name, clip.asked.get("prompt", ""), cells))
    return {"columns": ["score", *columns], "rows": rows}


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
