"""The result of an evaluation: figures in sections, clips with what was measured of each, unreadable files."""

import base64
import dataclasses
import html
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from riff.audio.io import load_audio, save_audio
from riff.evaluate.figures import Figure
from riff.tasks.gallery import SCRIPT, STYLE, Card, read_card
from riff.utils.errors import RiffError
from riff.utils.files import write_text
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


# WAS riff/evaluate/page.py: The report of an evaluation as one web page that needs nothing from elsewhere.

PLAYED = 6  # of the best clips, and of the worst
SECONDS = 20.0  # of each that are embedded
MOST_NAMES = 500  # in a list on the page; report.json has all
_RATE = 44100
_SCORE = (
    "The score is the mean of what was asked and heard (tempo within 4 % at any octave, key, genre, instruments), "
    "of 0 for each fault (clipping, silence, a copy), and of how usual the clip is in the reference (0 to 1)."
)
_CSS = """
body { max-width: 76rem; }
section { margin: 0 0 2.2rem; }
section > h2 { font-size: 1.25rem; margin: 0 0 .7rem; display: block; }
section > p { margin: .6rem 0; color: var(--soft); font-size: .86rem; max-width: 60rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .9rem; }
.tiles > div { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: .8rem 1rem; }
.tiles b { display: block; white-space: nowrap; font-size: 1.4rem; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.tiles span { display: block; font-size: .84rem; line-height: 1.35; }
.tiles small { display: block; color: var(--soft); font-size: .8rem; }
.sheet { background: var(--card); border: 1px solid var(--line); border-radius: 14px; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: .8rem; }
th, td { padding: .5rem .6rem; border-top: 1px solid var(--line); vertical-align: middle; }
tr:first-child > th, tr:first-child > td { border-top: 0; }
th:first-child, td:first-child { padding-left: 1rem; } th:last-child, td:last-child { padding-right: 1rem; }
.number { text-align: right; white-space: nowrap; } .soft { color: var(--soft); }
.wide { min-width: 15rem; } .missing { color: var(--soft); font-style: italic; }
td details { font-size: .84rem; color: var(--soft); } td summary { padding: 0; color: var(--ink); font-size: .92rem; }
svg.bar { display: block; }
.figures { table-layout: fixed; min-width: 44rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); gap: .9rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: .8rem 1rem; }
figcaption { display: flex; flex-direction: column; margin-bottom: .4rem; font-size: .88rem; }
figcaption span { color: var(--soft); font-size: .8rem; }
svg { max-width: 100%; height: auto; font: 11px system-ui, sans-serif; fill: var(--soft); }
figure svg { display: block; width: 100%; }
.ours { fill: var(--accent); } circle.ours { fill-opacity: .8; } .theirs { fill: none; stroke: #d99000;
  stroke-width: 1.6; } .floor { stroke: var(--line); } .frame { fill: none; stroke: var(--line); }
.empty { fill: var(--line); } .range { stroke: var(--ink); stroke-width: 1.4; }
.maps { margin-bottom: .9rem; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); }
footer > span:only-child { margin: 0; }
.ladder { margin: .9rem 0; }
col.value { width: 9rem; } col.range { width: 12.5rem; } col.bar { width: 9rem; } col.n { width: 5rem; }
.key { display: flex; gap: 1.2rem; font-size: .84rem; color: var(--soft); margin: 0 0 .8rem; }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 50%; margin-right: .4rem;
  vertical-align: -.08rem; background: var(--accent); }
.key i + i, .key .ring { background: none; border: 2px solid #d99000; }
main h2 { -webkit-line-clamp: 3; }
.all td { padding-top: .3rem; padding-bottom: .3rem; font-size: .84rem; } .all td:nth-child(2) { min-width: 16rem; }
.lines { font-size: .88rem; color: var(--soft); overflow-wrap: anywhere; }
dl.words { grid-template-columns: minmax(10rem, 22rem) 1fr; font-size: .88rem; gap: .4rem 1.4rem; }
dl.words dt { white-space: normal; } dl.words dd { color: var(--soft); max-height: none; }
@media (max-width: 48rem) { .figures { min-width: 0; } .figures :is(th, td):nth-child(4), col.bar { display: none; }
  col.value { width: 6.5rem; } col.range { width: 7.5rem; } col.n { width: 3.2rem; } .wide { min-width: 0; } }
@media (max-width: 40rem) { dl.words { display: block; } dl.words dd { margin-bottom: .6rem; } }
"""


def write_page(path: str | Path, result: Evaluation) -> Path:
    """Write the page, wholly or not at all.

    Args:
        path: the file.
        result: what is shown; the best and the worst of its clips are read again, to be heard and seen.

    Raises:
        RiffError, SystemProblem: as in :func:`riff.utils.files.atomic_path`.
    """
    title = html.escape(result.title)
    find = '<input type="search" placeholder="find in clips" aria-label="find in clips" hidden>'
    parts = [
        f"<header><div><h1>{title}</h1><p>{html.escape(_summary(result))}</p></div>{find}</header>",
        _tiles(result),
        *(_section(section) for section in result.sections),
        _plots(result),
        *_players(result.clips),
        _all_clips(result.clips),
        _problems(result.problems),
        _definitions(result.sections),
        f'<p class="origin">Measured with riff {__version__} eval. All figures are in report.json.</p>',
    ]
    write_text(
        path,
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="riff {__version__} eval">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{title} · evaluation</title>\n<style>{STYLE}{_CSS}</style>\n</head>\n<body>\n"
        f"{chr(10).join(part for part in parts if part)}\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
    )
    return Path(path)


def _summary(result: Evaluation) -> str:
    count = len(result.clips)
    words = [f"{count} clip{'' if count == 1 else 's'}"] if count else []
    if result.settings.get("reference"):
        words.append(f"against {len(result.reference)} of {Path(result.settings['reference']).name}")
    if result.settings.get("round_trip"):
        words.append(f"round trip of {Path(result.settings['round_trip']).name}")
    if result.problems:
        words.append(f"{len(result.problems)} could not be used")
    return " · ".join(words)


def _tiles(result: Evaluation) -> str:
    """The first figure of each section that has a value, large; of the obedience one of each kind."""
    chosen: list[Figure] = []
    for section in result.sections:
        measured = [figure for figure in section.figures if math.isfinite(figure.value)]
        kinds: dict[str, Figure] = {}
        for figure in measured if section.title == "Obedience" else measured[:1]:
            kinds.setdefault(figure.name.removeprefix("All ").split()[0].strip(",").lower(), figure)
        chosen += kinds.values()
    if not chosen:
        return ""
    boxes = []
    for figure in chosen[:10]:
        spread = show_interval(figure)
        small = f"95 %: {spread}" if spread else f"n = {figure.n}"
        boxes.append(
            f"<div><b>{html.escape(show_value(figure))}</b><span>{html.escape(figure.name)}</span>"
            f"<small>{html.escape(small)}</small></div>"
        )
    return f'<section class="tiles">{"".join(boxes)}</section>'


def _section(section: Section) -> str:
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in section.notes)
    title = f"<h2>{html.escape(section.title)}</h2>"
    if not section.figures:
        return f"<section>{title}{notes}</section>" if notes else ""
    rows = "".join(_row(figure) for figure in section.figures)
    notes += _ladder(section.figures) if section.title == "Round trip" else ""
    sizes = "".join(f'<col class="{name}">' for name in ("name", "value", "range", "bar", "n"))
    names = '<th>figure</th><th class="number">value</th><th>95 % interval</th><th></th><th class="number">n</th>'
    return (
        f'<section><h2>{html.escape(section.title)}</h2>{notes}<div class="sheet">'
        f'<table class="figures"><colgroup>{sizes}</colgroup><tr>{names}</tr>{rows}</table></div></section>'
    )


def _ladder(figures: list[Figure]) -> str:
    """The measures of the round trip, each with its rungs side by side."""
    measures: dict[str, list[tuple[str, float]]] = {}
    for figure in figures:
        name, _, rung = figure.name.partition(", from ")
        title = f"{name} ({figure.unit})" if figure.unit else name
        measures.setdefault(title, []).append((rung, figure.value))
    drawn = "".join(rungs(title, values) for title, values in measures.items())
    return f'<div class="plots maps ladder">{drawn}</div>'


def _row(figure: Figure) -> str:
    name = html.escape(figure.name)
    if figure.definition:
        name = f"<details><summary>{name}</summary>{html.escape(figure.definition)}</details>"
    if figure.detector:
        name += f'<small class="soft">its detector is right about {html.escape(figure.reliability)}</small>'
    kind = "number" if math.isfinite(figure.value) else "number missing"
    bar = interval_bar(figure.value, figure.low, figure.high) if figure.unit == "share" else ""
    return (
        f'<tr><td class="wide">{name}</td><td class="{kind}">{html.escape(show_value(figure))}</td>'
        f'<td class="soft">{html.escape(show_interval(figure))}</td><td>{bar}</td>'
        f'<td class="number soft">{figure.n or ""}</td></tr>'
    )


def _plots(result: Evaluation) -> str:
    maps = [
        scatter(f"clips by {name}", places.get("generated", []), places.get("reference", []), "two main axes of all")
        for name, places in result.maps.items()
    ]
    drawn = []
    for name in dict.fromkeys(name for clip in result.clips for name in clip.values):
        ours = [clip.values.get(name, math.nan) for clip in result.clips]
        theirs = [values.get(name, math.nan) for values in result.reference]
        drawn.append(histogram(name, ours, theirs))
    drawn = [plot for plot in drawn if plot]
    if not drawn and not maps:
        return ""
    ring = '<span><i class="ring"></i>reference</span>' if result.reference else ""
    key = f'<p class="key"><span><i></i>{html.escape(result.title)}</span>{ring}</p>'
    grids = f'<div class="plots maps">{"".join(maps)}</div>' if maps else ""
    grids += f'<div class="plots">{"".join(drawn)}</div>'
    return f"<section><h2>How the clips are distributed</h2>{key}{grids}</section>"


def _players(clips: list[ClipRow]) -> Iterator[str]:
    """The best and the worst, if there is anything to tell them apart; else the first ones."""
    ranked = [clip for clip in clips if math.isfinite(clip.score)]
    if len({clip.score for clip in ranked}) < 2:
        if clips:
            yield _cards("Some of the clips", clips[: 2 * PLAYED])
        return
    count = min(PLAYED, len(ranked) // 2)
    yield _cards("Best clips", ranked[:count], _SCORE)
    yield _cards("Worst clips", ranked[::-1][:count])


def _cards(title: str, clips: list[ClipRow], note: str = "") -> str:
    cards = "\n".join(_card(clip) for clip in clips)
    below = f"<p>{note}</p>" if note else ""
    return f"<section><h2>{title}</h2>{below}\n<main>\n{cards}\n</main></section>"


def _card(clip: ClipRow) -> str:
    card = read_card(Path(clip.path))
    name = html.escape(clip.name, quote=True)
    picture = '<p class="nothing">no picture</p>'
    if card.picture:
        picture = f'<img src="{card.picture}" alt="spectrogram" width="448" height="112">'
    facts = [f"score {clip.score:.2f}" if math.isfinite(clip.score) else "", f"{card.seconds:.1f} s", *clip.reasons]
    listed = "".join(f"<li>{html.escape(fact)}</li>" for fact in facts if fact)
    return (
        f'<article><div class="picture">{picture}<i></i></div><div class="text">'
        f'<h2>{html.escape(clip.asked.get("prompt") or clip.name)}</h2><ul class="facts">{listed}</ul>'
        f"{_player(card, Path(clip.path), name)}<footer><span>{name}</span></footer></div></article>"
    )


def _player(card: Card, path: Path, name: str) -> str:
    problem = card.problem
    if not problem:
        try:
            return f'<audio controls preload="none" src="{_sound(path)}" aria-label="{name}"></audio>'
        except RiffError as error:
            problem = str(error)
    return f'<p class="problem">{html.escape(problem)}</p>'


def _sound(path: Path) -> str:
    """The beginning of a clip as the text that stands in ``src``."""
    waveform, _ = load_audio(path, sample_rate=_RATE, duration=SECONDS)
    waveform = waveform if len(waveform) <= 2 else waveform.mean(0, keepdim=True)
    with tempfile.TemporaryDirectory() as folder:
        content = save_audio(Path(folder) / "clip.mp3", waveform, _RATE).read_bytes()
    return f"data:audio/mpeg;base64,{base64.b64encode(content).decode('ascii')}"


def _all_clips(clips: list[ClipRow]) -> str:
    if not clips:
        return ""
    columns = list(dict.fromkeys(name for clip in clips for name in clip.values))
    head = "".join(f'<th class="number">{html.escape(name)}</th>' for name in ("score", *columns))
    rows = []
    for clip in clips[:MOST_NAMES]:
        numbers = [clip.score, *(clip.values.get(name, math.nan) for name in columns)]
        cells = "".join(f'<td class="number">{f"{number:.4g}" if number == number else ""}</td>' for number in numbers)
        prompt = html.escape(clip.asked.get("prompt", ""))
        rows.append(f"<tr><td>{html.escape(clip.name)}</td><td>{prompt}</td>{cells}</tr>")
    return (
        f"<section><details><summary>all clips, one by one</summary>"
        f'<div class="sheet all"><table><tr><th>file</th><th>prompt</th>{head}</tr>{"".join(rows)}</table></div>'
        f"</details></section>"
    )


def _problems(problems: list[str]) -> str:
    if not problems:
        return ""
    lines = "".join(f"<li>{html.escape(problem)}</li>" for problem in problems[:MOST_NAMES])
    return f'<section><h2>Files that could not be used</h2><ul class="lines">{lines}</ul></section>'


def _definitions(sections: list[Section]) -> str:
    words = "".join(
        f"<dt>{html.escape(figure.name)}</dt><dd>{html.escape(figure.definition)}</dd>"
        for section in sections
        for figure in section.figures
        if figure.definition
    )
    return f'<section><h2>Definitions</h2><dl class="words">{words}</dl></section>' if words else ""


# WAS riff/evaluate/plots.py: The plots of an evaluation's page, as SVG in the page's own colours: histograms,
# maps of clips, intervals.

_WIDE, _HIGH = 320, 132
_TOP, _BOTTOM = 8, 20
_BINS = 24


def histogram(title: str, ours: Sequence[float], theirs: Sequence[float] = ()) -> str:
    """How a measurement is distributed over the clips, filled, and over the reference's, as a line.

    Args:
        title: with the unit.
        ours: one number of each clip; those that are not finite are left out.
        theirs: the same of the reference; may be empty.

    Returns:
        A ``figure``; empty if there are fewer than two different numbers.
    """
    sets = [np.array([value for value in values if math.isfinite(value)]) for values in (ours, theirs)]
    every = np.concatenate(sets)
    if not len(sets[0]) or len(np.unique(every)) < 2:
        return ""
    low, high = float(every.min()), float(every.max())
    counts = [np.histogram(values, bins=_BINS, range=(low, high))[0] / max(len(values), 1) for values in sets]
    tallest = max(float(count.max()) for count in counts)
    floor, step = _HIGH - _BOTTOM, _WIDE / _BINS
    heights = [count / tallest * (floor - _TOP) for count in counts]
    bars = "".join(
        f"<rect class='ours' x='{index * step + 0.5:.1f}' y='{floor - tall:.1f}' width='{step - 1:.1f}' "
        f"height='{tall:.1f}' rx='1.5'/>"
        for index, tall in enumerate(heights[0])
        if tall
    )
    line = ""
    if len(sets[1]):
        points = [
            f"{(index + side) * step:.1f},{floor - tall:.1f}"
            for index, tall in enumerate(heights[1])
            for side in (0, 1)
        ]
        line = f"<polyline class='theirs' points='0,{floor} {' '.join(points)} {_WIDE},{floor}'/>"
    ends = (
        f"<text x='0' y='{_HIGH - 4}'>{_short(low)}</text>"
        f"<text x='{_WIDE}' y='{_HIGH - 4}' text-anchor='end'>{_short(high)}</text>"
        f"<line class='floor' x1='0' y1='{floor}' x2='{_WIDE}' y2='{floor}'/>"
    )
    middle = f"median {_short(float(np.median(sets[0])))}"
    if len(sets[1]):
        middle += f", reference {_short(float(np.median(sets[1])))}"
    return _figure(title, middle, bars + line + ends, _WIDE, _HIGH)


def scatter(title: str, ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], note: str) -> str:
    """All clips on two axes: those of the evaluated folder as dots, the reference's as rings.

    Args:
        title: above it.
        ours: (n, 2) places.
        theirs: (m, 2) places.
        note: below the title.
    """
    wide, high, edge = _WIDE, 240, 10
    points = np.array([*theirs, *ours], dtype=float).reshape(-1, 2)
    if not len(ours) or not np.isfinite(points).all():
        return ""
    low, span = points.min(0), np.maximum(np.ptp(points, axis=0), 1e-12)
    drawn = []
    for index, (x, y) in enumerate((points - low) / span):
        kind, radius = ("theirs", 3.2) if index < len(theirs) else ("ours", 3.6)
        place = f"cx='{edge + x * (wide - 2 * edge):.1f}' cy='{high - edge - y * (high - 2 * edge):.1f}'"
        drawn.append(f"<circle class='{kind}' {place} r='{radius}'/>")
    frame = f"<rect class='frame' x='.5' y='.5' width='{wide - 1}' height='{high - 1}' rx='8'/>"
    return _figure(title, note, frame + "".join(drawn), wide, high)


def rungs(title: str, values: Sequence[tuple[str, float]]) -> str:
    """How a measure grows or falls from rung to rung of the ladder: a bar for each.

    Args:
        title: of the measure, with its unit.
        values: rung and value; those that are not finite have no bar.
    """
    finite = [abs(value) for _, value in values if math.isfinite(value)]
    if not finite:
        return ""
    largest, tall, parts = max(*finite, 1e-12), 26, []
    for index, (name, value) in enumerate(values):
        top = index * tall
        parts.append(f"<text x='0' y='{top + 15}'>{html.escape(name)}</text>")
        if math.isfinite(value):
            width = abs(value) / largest * (_WIDE - 150)
            parts.append(f"<rect class='ours' x='90' y='{top + 4}' width='{width:.1f}' height='14' rx='4'/>")
            parts.append(f"<text x='{96 + width:.1f}' y='{top + 15}'>{_short(value)}</text>")
    return _figure(title, "back from each rung", "".join(parts), _WIDE, tall * len(values))


def interval_bar(value: float, low: float, high: float) -> str:
    """A share 0..1 as a bar, its 95 % interval as a line across its end."""
    width = 120
    if not math.isfinite(value):
        return ""
    whisker = ""
    if math.isfinite(low) and math.isfinite(high):
        whisker = (
            f"<line class='range' x1='{low * width:.1f}' y1='7' x2='{high * width:.1f}' y2='7'/>"
            f"<line class='range' x1='{low * width:.1f}' y1='4' x2='{low * width:.1f}' y2='10'/>"
            f"<line class='range' x1='{high * width:.1f}' y1='4' x2='{high * width:.1f}' y2='10'/>"
        )
    return (
        f"<svg class='bar' viewBox='-1 0 {width + 2} 14' width='{width + 2}' height='14' aria-hidden='true'>"
        f"<rect class='empty' width='{width}' y='3' height='8' rx='4'/>"
        f"<rect class='ours' width='{max(value * width, 0):.1f}' y='3' height='8' rx='4'/>{whisker}</svg>"
    )


def _figure(title: str, below: str, inside: str, wide: int, high: int) -> str:
    words = f"<b>{html.escape(title)}</b><span>{html.escape(below)}</span>"
    label = html.escape(title, quote=True)
    svg = f"<svg viewBox='0 0 {wide} {high}' role='img' aria-label=\"{label}\">{inside}</svg>"
    return f"<figure><figcaption>{words}</figcaption>{svg}</figure>"


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
