"""Is it true, what ``riff prepare --caption auto`` says? Counted on composed clips, whose truth is known.

    python -m training.measure.captions --pieces 110

The thresholds in riff/prepare/describe.py were chosen on pieces 10000 to 10149 of the held-out seeds; these are 21000
and on. The tagger was trained on neither. All of it is General MIDI: of recordings this says nothing.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from riff.evaluate.figures import wilson_interval
from riff.music.alignment import LEVEL
from riff.music.beats import Beats, track_beats
from riff.music.tempo_estimation import tempo_error
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import mel_to_image
from riff.spectrogram.mel import waveform_to_mel
from riff.train.data.auto_caption import FAMILIES, FAST, MODERATE, SLOW, Description, describe
from riff.utils.errors import RiffError
from training.composer.arrange import HELD_OUT_SEEDS, compose
from training.composer.effects import SAMPLE_RATE
from training.composer.render import render
from training.composer.score import Score, Truth

FEW, MANY = 12.3, 23.8  # notes per second: thirds of the composed clips on which thresholds were chosen


@dataclass(frozen=True)
class Case:
    """A clip: its truth, its notes per second, and what was said of it, in four settings."""

    truth: Truth
    notes: float
    on_grid: Description
    without_beats: Description
    planted: dict[str, Description]


@dataclass(frozen=True)
class Row:
    """How often something was said, and how often that was right; ``of`` is how often it would have been right."""

    name: str
    said: int
    right: int
    of: int


def cases_of(score: Score, config: SpectrogramConfig, *, planted: bool) -> list[Case]:
    """Play a piece and have its clips described: on the grid with tracked beats, without beats, and changed."""
    sound = torch.from_numpy(render(score)).mean(0, keepdim=True)
    sound = sound * 10.0 ** ((LEVEL - _decibels(sound)) / 20.0)
    try:
        beats = track_beats(sound, SAMPLE_RATE)
    except RiffError:
        beats = None
    width, bars = sound.shape[-1] // len(score.windows), score.beats / len(score.windows)
    found = []
    for number, truth in enumerate(score.windows):
        clip = sound[:, number * width : (number + 1) * width]
        start, stop = number * bars, (number + 1) * bars
        count = sum(start <= note.start < stop for part in score.parts for note in part.notes)
        found.append(
            Case(
                truth,
                count / (width / SAMPLE_RATE),
                _on_grid(clip, truth, beats, config),
                describe(clip, SAMPLE_RATE, beats=None, image=None, config=config),
                {name: _on_grid(change(clip), truth, beats, config) for name, change in CHANGES.items()}
                if planted and number == 0
                else {},
            )
        )
    return found


def _on_grid(clip: Tensor, truth: Truth, beats: Beats | None, config: SpectrogramConfig) -> Description:
    mel = waveform_to_mel(clip, config, bpm=truth.bpm)
    image = mel_to_image(mel, config)[..., : round(config.frames_per_beat * 2 * truth.beats_per_bar)]
    return describe(clip, SAMPLE_RATE, beats=beats, image=image, config=config)


def _decibels(sound: Tensor) -> float:
    return 10.0 * math.log10(float(sound.square().mean()) + 1e-12)


def _filtered(order: int, hertz: float, kind: str) -> Callable[[Tensor], Tensor]:
    """A Butterworth filter that leaves the level as it was."""

    def change(sound: Tensor) -> Tensor:
        from scipy.signal import butter, sosfilt

        sections = butter(order, hertz, btype=kind, fs=SAMPLE_RATE, output="sos")
        changed = torch.from_numpy(sosfilt(sections, sound.double().numpy())).float()
        return changed * 10.0 ** ((_decibels(sound) - _decibels(changed)) / 20.0)

    return change


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "10 dB down": lambda sound: sound * 10.0**-0.5,
    "15 dB up": lambda sound: sound * 10.0**0.75,
    "low-passed at 700 Hz": _filtered(2, 700.0, "lowpass"),
    "high-passed at 2.5 kHz": _filtered(2, 2500.0, "highpass"),
}


def count(name: str, cases: list[Case], said: Callable[[Case], bool], true: Callable[[Case], bool]) -> Row:
    """A row: of the cases in which it was said and in which it was true."""
    spoken = [case for case in cases if said(case)]
    return Row(name, len(spoken), sum(true(case) for case in spoken), sum(true(case) for case in cases))


def rows_of(cases: list[Case], which: str) -> list[Row]:
    """The kinds of words that the tagger and the beats give, in one setting."""

    def told(case: Case) -> Description:
        found: Description = getattr(case, which)
        return found

    rows = [
        count("genre", cases, lambda c: told(c).genre is not None, lambda c: _genre(c) in (told(c).genre, None)),
        count("key", cases, lambda c: told(c).keyscale is not None, lambda c: told(c).keyscale == c.truth.keyscale),
        count("drums", cases, lambda c: told(c).drums is True, lambda c: c.truth.has_drums),
        count("no drums", cases, lambda c: told(c).drums is False, lambda c: not c.truth.has_drums),
    ]
    rows[:2] = [Row(row.name, row.said, row.right, len(cases)) for row in rows[:2]]
    families = [_family_row(name, cases, told) for name in sorted(_all_families(cases))]
    said, right, of = (sum(getattr(row, field) for row in families) for field in ("said", "right", "of"))
    return [*rows, Row("instruments, all families", said, right, of), *families]


def _genre(case: Case) -> str:
    return case.truth.genre.replace("_", " ")


def _families_of(truth: Truth) -> set[str]:
    family = {name: family for family, names in FAMILIES.items() for name in names}
    return {family.get(name, name) for name in truth.instruments if name != "drums"}


def _all_families(cases: list[Case]) -> set[str]:
    return {name for case in cases for name in _families_of(case.truth)}


def _family_row(name: str, cases: list[Case], told: Callable[[Case], Description]) -> Row:
    return count(f"— {name}", cases, lambda c: name in told(c).instruments, lambda c: name in _families_of(c.truth))


def measured_rows(cases: list[Case]) -> list[Row]:
    """The kinds of words that are measured."""
    rows = [
        _tempo_row("bpm within 1 %", cases, lambda bpm, asked: abs(bpm / asked - 1.0) <= 0.01),
        _tempo_row("bpm within 1 %, any level", cases, lambda bpm, asked: tempo_error(bpm, asked) <= 0.01),
    ]
    for word, (low, high) in {"slow": (0.0, SLOW), "mid-tempo": MODERATE, "fast": (FAST, math.inf)}.items():
        rows.append(_pace_row(word, low, high, cases))
    rows += [
        _measured("sparse (lowest third by notes)", cases, lambda d: d.density == "sparse", lambda c: c.notes <= FEW),
        _measured("sparse (not the highest third)", cases, lambda d: d.density == "sparse", lambda c: c.notes < MANY),
        _measured("busy (highest third by notes)", cases, lambda d: d.density == "busy", lambda c: c.notes >= MANY),
        _measured("busy (not the lowest third)", cases, lambda d: d.density == "busy", lambda c: c.notes > FEW),
        _measured("percussive (drums)", cases, lambda d: d.percussive is True, lambda c: c.truth.has_drums),
        _measured("tonal (no drums)", cases, lambda d: d.percussive is False, lambda c: not c.truth.has_drums),
    ]
    changed = [case for case in cases if case.planted]
    wanted: dict[str, tuple[str, ...]] = {
        "10 dB down": ("quiet",),
        "15 dB up": ("loud",),
        "low-passed at 700 Hz": ("warm", "dark"),
        "high-passed at 2.5 kHz": ("bright",),
    }
    for name, fitting in wanted.items():
        heard = [case.planted[name] for case in changed]
        hits = sum(bool({told.loudness, told.brightness} & set(fitting)) for told in heard)
        rows.append(Row(f"{fitting[0]}, planted: {name}", len(changed), hits, len(changed)))
    return rows


def _measured(name: str, cases: list[Case], said: Callable[[Description], bool], true: Callable[[Case], bool]) -> Row:
    return count(name, cases, lambda case: said(case.on_grid), true)


def _tempo_row(name: str, cases: list[Case], right: Callable[[float, float], bool]) -> Row:
    pairs = [(case.on_grid.bpm, case.truth.bpm) for case in cases if case.on_grid.bpm is not None]
    return Row(name, len(pairs), sum(right(bpm, asked) for bpm, asked in pairs), len(cases))


def _pace_row(word: str, low: float, high: float, cases: list[Case]) -> Row:
    return count(word, cases, lambda case: case.on_grid.pace == word, lambda case: low <= case.truth.bpm <= high)


def table(rows: list[Row], clips: int) -> str:
    """The rows as a Markdown table."""
    lines = ["| word | said of clips | right when said | 95 % interval | said where true |", "|---|---|---|---|---|"]
    for row in rows:
        low, high = wilson_interval(row.right, row.said)
        right = f"{row.right / row.said:.3f} | {low:.3f}..{high:.3f}" if row.said else " | "
        recall = f"{row.right / row.of:.2f}" if row.of else ""
        lines.append(f"| {row.name} | {row.said}/{clips} | {right} | {recall} |")
    return "\n".join(lines)


def examples(cases: list[Case], number: int) -> list[str]:
    """Captions of the first clips, to be read."""
    rng = random.Random(0)
    return [caption for case in cases[:number] for caption in case.on_grid.captions("", rng, 4)]


def parse_arguments(argv: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=int, default=120, help="pieces of two clips each")
    parser.add_argument("--first", type=int, default=21000, help="first of them among the held-out seeds")
    parser.add_argument("--planted", type=int, default=40, help="pieces whose first clip is also changed")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    torch.set_num_threads(1)
    config, began = SpectrogramConfig(), time.time()
    cases: list[Case] = []
    for number in range(arguments.pieces):
        score = compose(HELD_OUT_SEEDS.start + arguments.first + number)
        cases += cases_of(score, config, planted=number < arguments.planted)
        left = (time.time() - began) / (number + 1) * (arguments.pieces - number - 1)
        print(f"piece {number + 1}/{arguments.pieces}, {left:.0f} s left", file=sys.stderr, flush=True)
    print(f"On the beats grid, {len(cases)} clips:\n\n{table(rows_of(cases, 'on_grid'), len(cases))}\n")
    print(f"Measured:\n\n{table(measured_rows(cases), len(cases))}\n")
    print(f"Without beats or picture:\n\n{table(rows_of(cases, 'without_beats'), len(cases))}\n")
    print("\n".join(examples(cases, 6)))


if __name__ == "__main__":
    main()
