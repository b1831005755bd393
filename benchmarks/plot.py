"""The plot of benchmarks over versions: small panels, one a ratio, as an SVG that follows dark mode."""

from __future__ import annotations

import html
import math
from typing import Any

from benchmarks.history import fair_ratios, machine_slug

# What is plotted, and its title.
PLOTTED = {
    "real_time": "music per second of work",
    "denoise_speed": "prompt to image, to diffusers",
    "denoise_to_sound_speed": "prompt to sound, to diffusers",
    "sound_speed_default": "picture to sound, to Riffusion's",
    "sound_speed_to_librosa": "picture to sound, to librosa",
    "encode_speed": "sound to image, to torchaudio",
    "train_speed": "training step, to diffusers",
}
_COLOURS = ("#6c3fd1", "#d1643f", "#2f8f6b", "#2f6fb0")
_WIDE, _HIGH, _COLUMNS = 300, 130, 3


def picture(history: list[dict[str, Any]]) -> str:
    """Small plots, one a ratio, of all runs of riff-mini from left to right; an SVG that follows dark mode."""
    runs = [run for run in history if run["settings"].get("model") == "riff-mini"]
    machines = list(dict.fromkeys(machine_slug(run["machine"]) for run in runs))
    names = [name for name in PLOTTED if any(name in fair_ratios(run) for run in runs)]
    rows = math.ceil(len(names) / _COLUMNS)
    wide, high = _COLUMNS * _WIDE, rows * _HIGH + 22 + 16 * len(machines)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {wide} {high}' width='{wide}' height='{high}' "
        "font-family='system-ui, sans-serif' font-size='11' role='img' aria-label='Benchmarks over versions'>",
        "<style>text { fill: #1d1b26 } .soft { fill: #66626f } .axis { stroke: #bbb5a9 } "
        "@media (prefers-color-scheme: dark) { text { fill: #efecf6 } .soft { fill: #a59fb5 } "
        ".axis { stroke: #4a4560 } }</style>",
    ]
    for number, name in enumerate(names):
        left, top = number % _COLUMNS * _WIDE, number // _COLUMNS * _HIGH
        parts += [f"<g transform='translate({left} {top})'>", *_panel(name, runs, machines), "</g>"]
    for number, machine in enumerate(machines):
        y = rows * _HIGH + 20 + 16 * number
        colour = _COLOURS[number % len(_COLOURS)]
        words = html.escape(machine.replace("-", " "))
        parts.append(f"<circle cx='16' cy='{y - 4}' r='4' fill='{colour}'/><text x='26' y='{y}'>{words}</text>")
    parts.append(
        f"<text class='soft' x='{wide - 8}' y='{rows * _HIGH + 20}' text-anchor='end'>times as fast; dots are medians, "
        "bars the range of pairs, rings processor time on a busy machine</text></svg>"
    )
    return "\n".join(parts) + "\n"


def _panel(name: str, runs: list[dict[str, Any]], machines: list[str]) -> list[str]:
    """One plot: its runs, evenly spaced, on a scale from 0."""
    fair = [fair_ratios(run) for run in runs]
    points = [(number, run, fair[number][name]) for number, run in enumerate(runs) if name in fair[number]]
    top = 1.15 * max(max(ratio["high"] for _, _, ratio in points), 1.0)
    floor, ceiling, left, right = _HIGH - 26, 30, 14, _WIDE - 40

    def place(number: int, value: float) -> tuple[float, float]:
        share = 0.5 if len(runs) == 1 else number / (len(runs) - 1)
        return left + 14 + share * (right - left - 28), floor - value / top * (floor - ceiling)

    last = points[-1][2]["value"]
    one = place(0, 1.0)[1]
    parts = [
        f"<text x='{left}' y='18' font-weight='600'>{html.escape(PLOTTED[name])}</text>",
        f"<line class='axis' x1='{left}' y1='{floor}' x2='{right}' y2='{floor}'/>",
        f"<line class='axis' x1='{left}' y1='{one:.1f}' x2='{right}' y2='{one:.1f}' stroke-dasharray='3 3'/>",
        f"<text class='soft' x='{right + 4}' y='{one + 4:.1f}'>1x</text>",
    ]
    for number, run, ratio in points:
        colour = _COLOURS[machines.index(machine_slug(run["machine"])) % len(_COLOURS)]
        (x, low), (_, high), (_, y) = (place(number, ratio[key]) for key in ("low", "high", "value"))
        fill = "none" if run["machine"].get("noisy") else colour
        parts.append(f"<line x1='{x:.1f}' y1='{low:.1f}' x2='{x:.1f}' y2='{high:.1f}' stroke='{colour}'/>")
        parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4' fill='{fill}' stroke='{colour}' stroke-width='1.5'/>")
        parts.append(
            f"<text class='soft' x='{x:.1f}' y='{floor + 14}' text-anchor='middle'>{html.escape(run['riff'])}</text>"
            if number in (points[0][0], points[-1][0])
            else ""
        )
    newest = f"<text x='{right}' y='18' text-anchor='end' font-weight='600'>{short(last)}x</text>"
    return [*filter(None, parts), newest]


def short(value: float) -> str:
    """Three digits or so."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
