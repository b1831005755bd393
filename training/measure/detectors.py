"""How often tempo and key detectors are right about composed music, whose truth is known.

    python -m training.measure.detectors --clips 500
    python -m training.measure.detectors --clips 500 --json detectors.json
    python -m training.measure.detectors --clips 500 --ship       what `riff eval` says beside its figures

Clips of two and of four bars in turn, of seeds that neither the training of the tagger nor any choice in the detectors
has seen, are played by FluidSynth. riff's are what ``riff eval`` hears (:func:`riff.evaluate.obedience.detect`,
which is
not told the tempo), beside librosa's beat tracker (``librosa.beat.beat_track`` on 22,050 Hz, as it comes) and the plain
Krumhansl profiles (Krumhansl & Kessler 1982) correlated with the mean of ``librosa.feature.chroma_cqt``. "Rhythmic"
clips have drums. Any octave: a third, half, twice or thrice as well.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from riff.evaluate.figures import ACCURACY_FILE, SHIPPED, Figure, mean_figure, share_figure
from riff.evaluate.obedience import OCTAVES, detect
from riff.evaluate.sounds import Sound
from riff.music.key import measure_key, mirex_key_score
from riff.music.theory import KEYS
from riff.utils.files import write_json
from training.composer.arrange import HELD_OUT_SEEDS, compose
from training.composer.effects import SAMPLE_RATE
from training.composer.render import render

FIRST_SEED = 10_075_000  # held out; 0 to 10 million trains, and 5.5 million on was used to choose
LIBROSA_RATE = 22050
# How well each of the twelve semitones fits a key, by listeners (Krumhansl & Kessler 1982).
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What was heard in one clip, by detector, beside the truth."""

    bars: int
    rhythmic: bool
    bpm: float
    keyscale: str
    tempi: dict[str, float]
    keys: dict[str, str]
    seconds: dict[str, float]
    genre: bool
    instruments: tuple[bool, ...]


def krumhansl_key(chroma: np.ndarray) -> str:
    """The key whose profile correlates best with pitch classes, shape (12,), C first."""
    profiles = [np.roll(profile, tonic) for profile in (MAJOR, MINOR) for tonic in range(12)]
    return KEYS[int(np.argmax([np.corrcoef(chroma, profile)[0, 1] for profile in profiles]))]


def answer(seed: int) -> Answer:
    """Compose, play and measure one clip; odd seeds have four bars."""
    import librosa

    from riff.music.tagger import Tagger

    torch.set_num_threads(1)
    score = compose(seed, windows=1 + seed % 2)
    sound = torch.from_numpy(render(score)).mean(0, keepdim=True)
    small = librosa.resample(sound[0].numpy(), orig_sr=SAMPLE_RATE, target_sr=LIBROSA_RATE)
    seconds: dict[str, float] = {}
    tagger = Tagger.load()
    with _timed(seconds, "riff, tempo, key, genre and instruments"):
        heard = detect(Sound(Path("composed"), sound, SAMPLE_RATE), tagger)
    bpm = math.nan if heard.bpm is None else heard.bpm
    with _timed(seconds, "librosa, tempo"):
        tracked = float(np.atleast_1d(librosa.beat.beat_track(y=small, sr=LIBROSA_RATE)[0])[0])
    keys = {"riff, by the tagger": heard.keyscale or ""}
    with _timed(seconds, "riff, key by pitch classes"):
        keys["riff, by pitch classes"] = measure_key(sound, SAMPLE_RATE)
    with _timed(seconds, "librosa, chroma_cqt"):
        keys["Krumhansl on chroma_cqt"] = krumhansl_key(librosa.feature.chroma_cqt(y=small, sr=LIBROSA_RATE).mean(1))
    truth = score.windows[0]
    rhythmic = any(window.has_drums for window in score.windows)
    tempi = {"riff": bpm, "librosa.beat": tracked}
    plays = {name for window in score.windows for name in window.instruments} & set(tagger.labels.instruments)
    return Answer(
        2 * len(score.windows), rhythmic, score.bpm, truth.keyscale, tempi, keys, seconds,
        heard.genre == truth.genre, tuple(name in heard.instruments for name in sorted(plays)),
    )  # fmt: skip


class _timed:  # noqa: N801 - reads as a function
    """Seconds of a ``with`` block into a dictionary."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self.seconds, self.name = seconds, name

    def __enter__(self) -> None:
        self.began = time.process_time()

    def __exit__(self, *problem: object) -> None:
        self.seconds[self.name] = time.process_time() - self.began


def figures(answers: list[Answer]) -> Iterator[tuple[str, Figure]]:
    """Every share, with the group of clips it is of."""
    groups = {
        "all": answers,
        "rhythmic": [answer for answer in answers if answer.rhythmic],
        "without drums": [answer for answer in answers if not answer.rhythmic],
        "2 bars": [answer for answer in answers if answer.bars == 2],
        "4 bars": [answer for answer in answers if answer.bars == 4],
    }
    for group, members in groups.items():
        for detector in ("riff", "librosa.beat"):
            pairs = [(member.tempi[detector], member.bpm) for member in members]
            for name, tolerance, levels in (
                ("tempo within 1 %", 0.01, (1.0,)),
                ("tempo within 4 %", 0.04, (1.0,)),
                ("tempo within 1 %, any octave", 0.01, OCTAVES),
                ("tempo within 4 %, any octave", 0.04, OCTAVES),
            ):
                yield group, share_figure(f"{detector}: {name}", _hits(pairs, tolerance, levels), "")
        for detector in members[0].keys if members else ():
            keys = [(member.keys[detector], member.keyscale) for member in members]
            yield group, share_figure(f"{detector}: key exact", [heard == true for heard, true in keys], "")
            scores = [mirex_key_score(heard, true) if heard else 0.0 for heard, true in keys]
            yield group, mean_figure(f"{detector}: key, MIREX score", scores, "", "")
        yield group, share_figure("riff's tagger: genre", [member.genre for member in members], "")
        each = [hit for member in members for hit in member.instruments]
        yield group, share_figure("riff's tagger: instruments that play", each, "")
        every = [all(member.instruments) for member in members]
        yield group, share_figure("riff's tagger: all instruments that play", every, "")


def _hits(pairs: Iterable[tuple[float, float]], tolerance: float, levels: tuple[float, ...]) -> list[bool]:
    return [any(abs(heard * level / true - 1.0) <= tolerance for level in levels) for heard, true in pairs]


def ship(rows: list[tuple[str, Figure]], command: str) -> None:
    """Write into the package what ``riff eval`` says of its own detectors."""
    found = {(group, figure.name): figure for group, figure in rows}
    shares = []
    for name, groups in SHIPPED.items():
        for group in groups:
            figure = found[group, name]
            row = {"name": name, "of": groups[group], "value": round(figure.value, 4), "n": figure.n}
            shares.append(row | {"low": round(figure.low, 4), "high": round(figure.high, 4)})
    write_json(ACCURACY_FILE, {"command": command, "shares": shares})


def table(rows: list[tuple[str, Figure]]) -> str:
    """Markdown: a line a detector and measure, a column a group of clips."""
    groups = list(dict.fromkeys(group for group, _ in rows))
    cells = {(group, figure.name): figure for group, figure in rows}
    heads = [f"{group} ({cells[group, rows[0][1].name].n})" for group in groups]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (1 + len(groups)) + "|"]
    for name in dict.fromkeys(figure.name for _, figure in rows):
        found = [cells[group, name] for group in groups]
        shown = [f"{_number(f.value, f.unit)} ({_number(f.low, f.unit)}..{_number(f.high, f.unit)})" for f in found]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _number(value: float, unit: str) -> str:
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.3f}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="seed of the first clip")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--ship", action="store_true", help=f"write riff/models/{ACCURACY_FILE.name}")
    arguments = parser.parse_args(argv)
    seeds = range(arguments.first, arguments.first + arguments.clips)
    if arguments.clips < 2 or seeds.start < HELD_OUT_SEEDS.start or seeds.stop > HELD_OUT_SEEDS.stop:
        parser.error(f"seeds {seeds.start} to {seeds.stop - 1}: use at least 2 clips of {HELD_OUT_SEEDS}")
    answers, began = [], time.time()
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        for done, found in enumerate(pool.imap(answer, seeds, chunksize=4), 1):
            answers.append(found)
            if done % 20 == 0:
                left = (time.time() - began) / done * (len(seeds) - done)
                print(f"{done}/{len(seeds)} clips, {left:.0f} s left", file=sys.stderr, flush=True)
    rows = list(figures(answers))
    print(table(rows))
    times = {name: float(np.median([found.seconds[name] for found in answers])) for name in answers[0].seconds}
    print("\nCPU seconds a clip, median: " + ", ".join(f"{name} {value:.3f}" for name, value in times.items()))
    if arguments.json:
        named = [{"group": group, **dataclasses.asdict(figure)} for group, figure in rows]
        write_json(arguments.json, {"seeds": [seeds.start, seeds.stop], "figures": named, "seconds": times})
    if arguments.ship:
        ship(rows, f"python -m training.measure.detectors --clips {arguments.clips} --ship")


if __name__ == "__main__":
    main()
