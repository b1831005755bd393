"""Endless music is drawn as late, and as well, as is safe: on a clock of the tests' own."""

import itertools

import pytest

from riff.tasks.stream import STEPS, WAY, StreamPacer, fitting_steps, lookahead_s


def listen(took: float, *, bars: int = 40, steps: int | None = 10) -> tuple[list[tuple[float, float]], StreamPacer]:
    """When each of some bars of a second is begun and heard, if drawing one takes so long."""
    pace, now, rows = StreamPacer(steps), 0.0, []
    for _ in range(bars):
        begun = now + pace.idle_s(1.0, now)
        now = begun + took
        pace.note_sent(1.0, took_s=took, steps=pace.steps(1.0), now=now)
        rows.append((begun, pace.end - 1.0))
    return rows, pace


@pytest.mark.parametrize("took", [0.02, 0.2, 0.33, 0.5, 0.6])
def test_a_change_is_heard_within_two_bars_where_a_bar_is_drawn_in_half_of_its_time(took: float) -> None:
    rows, pace = listen(took)
    assert pace.gaps == 0
    waits = []
    for (before, _), (begun, start) in itertools.pairwise(rows[4:]):
        assert before < begun
        waits.append(start + WAY - before)  # it came when the bar before had just been begun
    assert max(waits) <= (2.0 if took <= 0.5 else 2.25) + 1e-9
    assert max(waits) > 1.5, "no bar was begun before it had to be"


def test_who_has_to_wait_hears_the_next_bar_from_when_it_came_and_it_is_counted() -> None:
    rows, pace = listen(1.25, bars=5)
    assert pace.gaps == 4
    assert [start for _, start in rows] == pytest.approx([1.25, 2.5, 3.75, 5.0, 6.25])


def test_the_next_bar_is_begun_as_late_as_is_safe() -> None:
    assert [lookahead_s(2.0, took) for took in (0.0, 0.5, 1.0, 5.0)] == [1.0, 1.0, 1.5, 2.0]


def test_as_many_steps_are_taken_as_leave_half_of_a_bar() -> None:
    assert [fitting_steps(2.0, step_s) for step_s in (0.01, 0.12, 0.5)] == [10, 7, 6]


def test_the_first_bar_comes_soon_and_the_others_are_drawn_as_well_as_there_is_time_for() -> None:
    pace, taken = StreamPacer(), []
    for now in range(4):
        taken.append(pace.steps(2.0))
        pace.note_sent(2.0, took_s=60.0 if now == 0 else 0.105 * taken[-1], steps=taken[-1], now=2.0 * now)
    assert taken == [STEPS[0], STEPS[0], 8, 8], "the first, in which a compiler may have run, is no measure"
    assert StreamPacer(3).steps(2.0) == 3
