"""How soon does endless music follow a change, does it ever stop, and is it then what was asked for?

    python -m training.measure.live [--changes 24] [--bpm 120] [--steps 10]

Plays in real time, without a loudspeaker, as ``riff serve`` streams and as the page's tab Live does: each bar is begun
when :mod:`riff.tasks.stream` says. At a random moment somebody asks for another genre; counted is what passes until
the music
that is heard has walked there, in bars and in seconds. The tagger that riff ships names the genre of the two bars from
then on. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from riff.music.tagger import BUNDLED
from riff.music.tagger_net import TaggerNet, load_net
from riff.pipeline import RiffPipeline
from riff.tasks.requests import StreamRequest
from riff.tasks.stream import WAY, Bar, MusicStream, StreamPacer, next_wanted
from training.composer.genre_words import NAMES
from training.measure.riff_mini import judge_clips


@dataclass(frozen=True)
class Heard:
    """A bar as the listener had it.

    Attributes:
        start: when its first beat was heard, on a monotonic clock.
        way: when the first :data:`WAY` of it had been heard.
        end: when its last beat ended.
        genre: that its drawing led to.
        steps: that it was drawn in.
        took_s: that drawing it took.
        image: ``(C, M, N)``.
    """

    start: float
    way: float
    end: float
    genre: str
    steps: int
    took_s: float
    image: Tensor


@dataclass(frozen=True)
class Change:
    """What somebody asked for, and when.

    Attributes:
        at: on a monotonic clock.
        genre: from then on.
    """

    at: float
    genre: str


def play(
    music: MusicStream, pace: StreamPacer, genres: Sequence[str], bpm: Sequence[float], *, seed: int
) -> tuple[list[Heard], list[Change]]:
    """Play from the first of the genres to the last, in real time; each change comes one to two bars after an arrival.

    Args:
        music: of the first genre.
        pace: of a listener who has heard nothing yet.
        genres: what is asked for, in turn.
        bpm: tempi to go with them, round and round.
        seed: of the moments.
    """
    rng, changes = random.Random(seed), [Change(-math.inf, genres[0])]

    def ask(number: int) -> None:
        changes.append(Change(time.monotonic(), genres[number]))
        music.set_target(StreamRequest(prompt=NAMES[genres[number]][0], bpm=bpm[number % len(bpm)]))

    heard = [_next_bar(music, pace, changes) for _ in range(2)]
    for number, genre in enumerate(genres[1:], 1):
        wait = max(heard[-1].start - time.monotonic(), 0.0) + rng.uniform(1.0, 2.0) * music.bar_seconds
        timer = threading.Timer(wait, ask, [number])
        timer.daemon = True
        timer.start()
        while heard[-1].genre != genre:
            heard.append(_next_bar(music, pace, changes))
    return [*heard, _next_bar(music, pace, changes)], changes[1:]


def _next_bar(music: MusicStream, pace: StreamPacer, changes: Sequence[Change]) -> Heard:
    """Wait until it is due, draw it, and give it to the listener."""
    time.sleep(pace.idle_s(music.bar_seconds, time.monotonic()))
    began = time.monotonic()
    bar, steps, wasted_s = next_wanted(music, pace)
    now = time.monotonic()
    seconds, took_s = bar.waveform.shape[-1] / music.sample_rate, now - began - wasted_s
    pace.note_sent(seconds, took_s=took_s, steps=steps, now=now)
    assert pace.end is not None
    genre = [change.genre for change in changes if change.at <= began + wasted_s][-1]
    return _placed(bar, pace.end - seconds, genre, steps, took_s)


def _placed(bar: Bar, start: float, genre: str, steps: int, took_s: float) -> Heard:
    """When its beats are heard, if its first sample is at ``start``."""
    way = float(np.interp(WAY * (len(bar.beats) - 1), range(len(bar.beats)), bar.beats))
    return Heard(start + bar.beats[0], start + way, start + bar.beats[-1], genre, steps, took_s, bar.image)


def bars_between(heard: Sequence[Heard], first: float, last: float) -> float:
    """Bars that pass in the ears from one moment to another; a wait between two bars counts as none."""

    def place(moment: float) -> float:
        index = max((number for number, bar in enumerate(heard) if bar.start <= moment), default=0)
        bar = heard[index]
        return index + min((moment - bar.start) / (bar.end - bar.start), 1.0)

    return place(last) - place(first)


def arrival(heard: Sequence[Heard], change: Change) -> int:
    """Which bar it is that walks to what was asked for."""
    return next(place for place, bar in enumerate(heard) if bar.genre == change.genre and bar.start > change.at)


def waits(heard: Sequence[Heard], changes: Sequence[Change]) -> list[tuple[float, float]]:
    """Bars and seconds from each change until what is heard has walked there."""
    arrived = [heard[arrival(heard, change)].way for change in changes]
    return [
        (bars_between(heard, change.at, way), way - change.at) for change, way in zip(changes, arrived, strict=True)
    ]


def recognised(net: TaggerNet, heard: Sequence[Heard], changes: Sequence[Change]) -> int:
    """In how many of the changes the two bars from the one that walks on are of the genre that was asked for."""
    places = [arrival(heard, change) for change in changes]
    pictures = [torch.cat([heard[place].image, heard[place + 1].image], dim=-1) for place in places]
    named = [net.labels.genres[index] for index in judge_clips(net, pictures).genre.argmax(1).tolist()]
    return sum(genre == change.genre for genre, change in zip(named, changes, strict=True))


def genres_in_four(pipe: RiffPipeline, net: TaggerNet, count: int, *, seed: int) -> list[str]:
    """One genre more than ``count``, no two neighbours alike, of those in 4/4: the metre of endless music stays."""
    known = [genre for genre in net.labels.genres if pipe.model.interpret(NAMES[genre][0]).beats_per_bar == 4]
    rng = random.Random(seed)
    found: list[str] = []
    while len(found) <= count:
        found += rng.sample(known, len(known))
    return [genre for place, genre in enumerate(found) if not place or genre != found[place - 1]][: count + 1]


def main(argv: list[str] | None = None) -> None:
    """Play, and print what was found as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=24)
    parser.add_argument("--bpm", type=float, nargs="+", default=[120.0], help="tempi, round and round")
    parser.add_argument("--steps", type=int, help="of every bar; default 6 to 10, as time allows")
    parser.add_argument("--model", help="default riff-mini")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    pipe = RiffPipeline.from_pretrained(arguments.model)
    net = load_net(BUNDLED, pipe.config)
    genres = genres_in_four(pipe, net, arguments.changes, seed=arguments.seed)
    first = StreamRequest(prompt=NAMES[genres[0]][0], bpm=arguments.bpm[0], seed=arguments.seed)
    music = MusicStream(pipe.model, first)
    pace = StreamPacer(arguments.steps)
    print(f"{len(genres)} genres, a few bars each", file=sys.stderr)
    heard, changes = play(music, pace, genres, arguments.bpm, seed=arguments.seed)
    passed = waits(heard, changes)
    bars, seconds = [row[0] for row in passed], [row[1] for row in passed]
    length = statistics.median(bar.end - bar.start for bar in heard)
    took, steps = statistics.median(bar.took_s for bar in heard[2:]), statistics.mean(bar.steps for bar in heard[2:])
    print("| what | value |\n|---|---|")
    print(f"| changes | {len(changes)} in {len(heard)} bars of {length:.2f} s |")
    print(f"| walked there after, bars | {statistics.median(bars):.2f} (at most {max(bars):.2f}) |")
    print(f"| walked there after, s | {statistics.median(seconds):.2f} (at most {max(seconds):.2f}) |")
    print(f"| within two bars | {sum(row <= 2.0 for row in bars)}/{len(bars)} |")
    print(f"| gaps | {pace.gaps} |")
    print(f"| a bar's drawing, of its length | {took / length:.2f}, in {steps:.1f} steps |")
    print(f"| the genre that was asked for, by the tagger | {recognised(net, heard, changes)}/{len(changes)} |")


if __name__ == "__main__":
    main()
