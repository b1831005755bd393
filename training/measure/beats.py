"""How often beats, bars and the clips that ``riff prepare`` cuts are right in composed music, whose truth is known.

    python -m training.measure.beats --pieces 200
    python -m training.measure.beats --pieces 200 --first 5600000      seeds on which the tracker may be tuned
    python -m training.measure.beats --pieces 40 --genre gamelan       a world that the network was not taught

Pieces of sixteen bars are played by FluidSynth and begin anywhere in their first bar, so that the start of a file tells
nothing. Beside riff's tracker (:func:`riff.music.beats.track_beats`, which is told the metre and not the tempo) stands
librosa's (``librosa.beat.beat_track`` on 22,050 Hz, as it comes). A beat is right within 70 ms of a true one, each true
one once; F is the harmonic mean of precision and recall (Dixon 2007). Beats of the first five seconds count as well.
A clip is right if it begins within 70 ms of a true bar line and ends so two bars later.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from riff.diffusion.hub import BUNDLED
from riff.evaluate.figures import Figure, mean_figure, share_figure
from riff.music.beats import NoBeat, track_beats
from riff.spectrogram.config import SpectrogramConfig
from riff.train.data.cutting import plan_cuts
from riff.train.data.settings import PrepareSettings
from riff.utils.files import write_json
from training.composer.arrange import compose
from training.composer.effects import SAMPLE_RATE
from training.composer.render import render
from training.measure.detectors import LIBROSA_RATE, table

FIRST_SEED = 10_085_000  # held out; 5.6 million on is for tuning
WINDOWS = 8  # of two bars
TOLERANCE = 0.07  # seconds
TRACKERS = ("riff", "librosa")
LEVELS = {"every beat": 1.0, "every half beat": 0.5, "every second beat": 2.0}
KINDS = (*LEVELS, "off beats", "other places", "another tempo", "none")


@dataclasses.dataclass(frozen=True)
class Answer:
    """What was heard in one piece.

    Attributes:
        seed: of the piece.
        genre: of it.
        drums: whether any window has them.
        beats: F by tracker.
        kinds: what the beats are, by tracker: :func:`kind_of`.
        late: seconds of riff's right beats after the true ones, mean, and mean distance.
        bars: F of riff's bar lines.
        clips: whether each clip that is cut is right.
    """

    seed: int
    genre: str
    drums: bool
    beats: dict[str, float]
    kinds: dict[str, str]
    late: tuple[float, float]
    bars: float
    clips: tuple[bool, ...]


def f_measure(found: Sequence[float], true: Sequence[float], tolerance: float = TOLERANCE) -> float:
    """Harmonic mean of precision and recall of increasing times, each used once."""
    hits = len(matched(found, true, tolerance))
    return 2.0 * hits / (len(found) + len(true)) if len(found) + len(true) else 0.0


def matched(found: Sequence[float], true: Sequence[float], tolerance: float = TOLERANCE) -> list[float]:
    """Of increasing times the distances, found less true, of those within the tolerance, each used once."""
    hits: list[float] = []
    at = 0
    for time_ in found:
        while at < len(true) and true[at] < time_ - tolerance:
            at += 1
        if at < len(true) and true[at] <= time_ + tolerance:
            hits.append(float(time_ - true[at]))
            at += 1
    return hits


def kind_of(found: Sequence[float], true: Sequence[float]) -> str:
    """What found beats are of the true ones, one of :data:`KINDS`."""
    if len(found) < 4:
        return "none"
    between = np.interp(found, true, np.arange(len(true)))  # in beats
    step = float(np.median(np.diff(between)))
    level = next((name for name, level in LEVELS.items() if abs(step / level - 1.0) < 0.04), "another tempo")
    if level != "every beat" or f_measure(found, true) > 0.9:
        return level
    # The mean on the circle: places just before and just after a beat are near each other.
    turn = np.angle(np.mean(np.exp(2j * np.pi * between))) / (2.0 * np.pi)
    return "off beats" if abs(turn) > 0.4 else "other places"


def answer(seed: int, genre: str | None = None) -> Answer:
    """Compose, play, cut the head off and track one piece."""
    import librosa

    torch.set_num_threads(1)
    score = compose(seed, genre=genre, windows=WINDOWS)
    metre = score.windows[0].beats_per_bar
    interval = 60.0 / score.bpm
    skipped = random.Random(seed).random() * metre * interval
    sound = torch.from_numpy(render(score))[:, round(skipped * SAMPLE_RATE) :]
    sound = sound[:, : round((score.beats * interval - skipped) * SAMPLE_RATE)]  # and the tail after the last bar
    seconds = sound.shape[-1] / SAMPLE_RATE
    true = np.arange(score.beats + 1) * interval - skipped
    small = librosa.resample(sound.mean(0).numpy(), orig_sr=SAMPLE_RATE, target_sr=LIBROSA_RATE)
    theirs = librosa.beat.beat_track(y=small, sr=LIBROSA_RATE, units="time")[1]
    try:
        beats = track_beats(sound, SAMPLE_RATE, beats_per_bar=metre)
        ours, bars = within(beats.times, seconds), within(beats.times[beats.downbeat :: metre], seconds)
    except NoBeat:
        ours, bars = [], []
    found = {"riff": ours, "librosa": within(theirs, seconds)}
    inside, lines = within(true, seconds), within(true[::metre], seconds)
    hits = matched(ours, inside) or [0.0]
    return Answer(
        seed, score.windows[0].genre, any(window.has_drums for window in score.windows),
        {name: f_measure(times, inside) for name, times in found.items()},
        {name: kind_of(times, true.tolist()) for name, times in found.items()},
        (float(np.mean(hits)), float(np.mean(np.abs(hits)))),
        f_measure(bars, lines),
        right_clips(sound, true[::metre], metre),
    )  # fmt: skip


def within(times: Iterable[float], seconds: float) -> list[float]:
    """Those that lie in the sound."""
    return [float(time_) for time_ in times if -1e-6 <= time_ < seconds]


def right_clips(sound: torch.Tensor, lines: np.ndarray, metre: int) -> tuple[bool, ...]:
    """For each steady clip that would be cut, whether it begins on a bar line and ends on the second after it."""
    config = SpectrogramConfig.load(BUNDLED)
    cuts = [
        cut
        for cut in plan_cuts(sound.mean(0, keepdim=True), PrepareSettings(config=config), metre).cuts
        if cut.beats and cut.steady
    ]
    right = []
    for cut in cuts:
        nearest = int(np.argmin(np.abs(lines - cut.start)))
        ends = lines[min(nearest + 2, len(lines) - 1)]
        right.append(abs(lines[nearest] - cut.start) <= TOLERANCE and abs(ends - cut.end) <= TOLERANCE)
    return tuple(bool(each) for each in right)


def figures(answers: list[Answer]) -> list[tuple[str, Figure]]:
    """Every figure, with the group of pieces it is of."""
    groups = {
        "all": answers,
        "with drums": [answer for answer in answers if answer.drums],
        "without drums": [answer for answer in answers if not answer.drums],
    }
    rows = []
    for group, members in groups.items():
        for name in TRACKERS:
            rows.append((group, mean_figure(f"{name}: F of the beats", [each.beats[name] for each in members], "", "")))
            for kind in KINDS:
                hits = [each.kinds[name] == kind for each in members]
                rows.append((group, share_figure(f"{name}: tracks {kind}", hits, "")))
        rows.append((group, mean_figure("riff: F of the bar lines", [each.bars for each in members], "", "")))
        whole = [each.kinds["riff"] == "every beat" and each.bars > 0.9 for each in members]
        rows.append((group, share_figure("riff: beats and bars right", whole, "")))
        on_beat = [each for each in members if each.kinds["riff"] == "every beat"]
        rows.append(
            (group, share_figure("riff: bars right where beats are", [each.bars > 0.9 for each in on_beat], ""))
        )
        rows.append(
            (group, mean_figure("riff: right beats late, ms", [1e3 * each.late[0] for each in on_beat], "", ""))
        )
        rows.append((group, mean_figure("riff: right beats off, ms", [1e3 * each.late[1] for each in on_beat], "", "")))
        rows.append(
            (group, share_figure("clips that prepare cuts, right", [hit for each in members for hit in each.clips], ""))
        )
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=int, default=200)
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="seed of the first piece")
    parser.add_argument("--genre", default=None, help="only this one, perhaps one that no training has heard")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="write what was heard in every piece here as well")
    arguments = parser.parse_args(argv)
    if arguments.pieces < 2:
        parser.error(f"--pieces is {arguments.pieces}; use at least 2")
    seeds = range(arguments.first, arguments.first + arguments.pieces)
    answers, began = [], time.time()
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        for done, found in enumerate(
            pool.imap(functools.partial(answer, genre=arguments.genre), seeds, chunksize=4), 1
        ):
            answers.append(found)
            if done % 20 == 0:
                left = (time.time() - began) / done * (len(seeds) - done)
                print(f"{done}/{len(seeds)} pieces, {left:.0f} s left", file=sys.stderr, flush=True)
    print(table(figures(answers)))
    if arguments.json:
        write_json(arguments.json, {"pieces": [dataclasses.asdict(each) for each in answers]})


if __name__ == "__main__":
    main()
