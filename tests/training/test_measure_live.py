"""The command that measures how soon endless music follows, on a clock of the tests' own."""

import math

import pytest
import torch

from riff.pipeline import RiffPipeline
from riff.tasks.requests import StreamRequest
from riff.tasks.stream import Bar, MusicStream, StreamPacer
from training.measure import live as measure_live
from training.measure.live import Change, Heard, bars_between, waits


def bars(starts: list[float], genres: str) -> list[Heard]:
    """Bars of two seconds, one genre a letter."""
    silence = torch.zeros(1, 2, 4)
    return [Heard(at, at + 0.5, at + 2.0, genre, 6, 1.0, silence) for at, genre in zip(starts, genres, strict=True)]


def test_what_passes_is_counted_in_the_bars_that_are_heard() -> None:
    heard = bars([0.0, 2.0, 4.0, 6.0], "aabb")
    assert waits(heard, [Change(1.0, "b")]) == [(pytest.approx(1.75), pytest.approx(3.5))]
    assert bars_between(heard, 2.0, 7.0) == pytest.approx(2.5)


def test_a_gap_takes_seconds_but_no_bars() -> None:
    heard = bars([0.0, 2.0, 9.0], "aab")
    assert waits(heard, [Change(1.0, "b")]) == [(pytest.approx(1.75), pytest.approx(8.5))]


def test_beats_are_placed_from_the_first_sample_on() -> None:
    bar = Bar(torch.zeros(1, 8), torch.zeros(1, 2, 4), (0.1, 0.6, 1.1, 1.6, 2.1))
    placed = measure_live._placed(bar, 10.0, "a", 6, 1.0)
    assert (placed.start, placed.way, placed.end) == pytest.approx((10.1, 10.6, 12.1))


def test_every_change_is_asked_for_and_arrives(mini_checkpoint) -> None:
    pipe = RiffPipeline.from_pretrained(mini_checkpoint)
    music, pace = MusicStream(pipe.model, StreamRequest(prompt="jazz", bpm=400.0, seed=0)), StreamPacer(1)
    heard, changes = measure_live.play(music, pace, ["swing_jazz", "techno", "house"], [400.0, 300.0], seed=1)
    assert [change.genre for change in changes] == ["techno", "house"] and music.bpm == 400.0
    assert [bar.genre for bar in heard][-2:] == ["house", "house"] and math.isfinite(heard[-1].end)
    passed = waits(heard, changes)
    assert all(1.0 < row[0] < 3.5 and row[1] > 0 for row in passed)
