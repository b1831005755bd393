"""The composer writes deterministic, playable, honestly described music in eighty genres."""

from __future__ import annotations

import json
import random
from functools import lru_cache

import pytest

from training.composer.__main__ import main
from training.composer.arrange import HELD_OUT_SEEDS, compose
from training.composer.genres import GENRES
from training.composer.harmony import voice
from training.composer.rhythm import Feel, parse_pattern
from training.composer.score import Score
from training.composer.theory import INSTRUMENTS, PITCH_NAMES, into_range, nearest_pitch, parse_chord

# Temperley 1999, revised Krumhansl-Schmuckler profiles.
MAJOR = (5, 2, 3.5, 2, 4.5, 4, 2, 4.5, 2, 3.5, 1.5, 4)
MINOR = (5, 2, 3.5, 4.5, 2, 4, 2, 4.5, 3.5, 2, 1.5, 4)


@lru_cache(maxsize=1)
def pieces() -> tuple[Score, ...]:
    return tuple(compose(seed) for seed in range(600))


def window_of(score: Score, start: float) -> int:
    return int(start // (2 * score.windows[0].beats_per_bar))


def test_same_seed_gives_the_same_score_and_another_seed_another() -> None:
    assert compose(5) == compose(5)
    assert compose(5) != compose(6)
    assert len({score.parts for score in pieces()}) == len(pieces())


def test_composing_leaves_the_global_random_state_alone() -> None:
    before = random.getstate()
    compose(1)
    assert random.getstate() == before


@pytest.mark.parametrize("genre", GENRES)
def test_every_genre_composes_for_twenty_seeds_as_promised(genre: str) -> None:
    low, high = GENRES[genre].bpm
    for seed in range(20):
        score = compose(seed, genre=genre)
        assert low <= score.bpm <= high and score.bpm == int(score.bpm)
        assert {truth.genre for truth in score.windows} == {genre}
        assert len({part.notes for part in score.parts}) == len(score.parts)


def test_every_window_lists_exactly_the_instruments_that_sound_in_it() -> None:
    for score in pieces():
        sounding: list[set[str]] = [set() for _ in score.windows]
        for part in score.parts:
            for note in part.notes:
                sounding[window_of(score, note.start)].add(part.instrument)
        for truth, names in zip(score.windows, sounding, strict=True):
            assert set(truth.instruments) == names and len(truth.instruments) == len(names)
            assert truth.has_drums == ("drums" in names)
            assert truth.lead == truth.instruments[0] != "drums"


def test_windows_are_two_whole_bars() -> None:
    for windows in (1, 2, 3):
        for seed in range(40):
            score = compose(seed, windows=windows)
            assert len(score.windows) == windows
            assert score.beats == 2 * windows * score.windows[0].beats_per_bar


def test_notes_are_playable_and_inside_the_piece() -> None:
    for score in pieces():
        for part in score.parts:
            ends: dict[int, float] = {}
            for note in part.notes:
                assert 0 <= note.start < score.beats and note.duration > 0
                assert note.start + note.duration <= score.beats + 1e-3
                assert 1 <= note.velocity <= 127
                assert ends.get(note.pitch, 0.0) <= note.start + 1e-3, "a pitch overlaps itself"
                ends[note.pitch] = note.start + note.duration
                if not part.is_drum:
                    assert INSTRUMENTS[part.instrument].low <= note.pitch <= INSTRUMENTS[part.instrument].high
            assert part.is_drum == (part.instrument == "drums")


def test_the_collection_is_as_wide_as_promised() -> None:
    truths = [truth for score in pieces() for truth in score.windows]
    assert len({truth.genre for truth in truths}) == len(GENRES) >= 80
    assert len({truth.family for truth in truths}) >= 8
    assert len({name for truth in truths for name in truth.instruments}) >= 40
    assert len({truth.keyscale for truth in truths}) == 24
    assert {truth.beats_per_bar for truth in truths} == {3, 4}
    assert {truth.section for truth in truths} == {"intro", "full", "break", "fill"}
    assert {truth.density for truth in truths} == {"sparse", "medium", "dense"}
    assert min(truth.bpm for truth in truths) < 60 and max(truth.bpm for truth in truths) > 165
    assert all(50 <= truth.bpm <= 180 for truth in truths)


def test_three_four_is_heard_in_few_pieces_and_only_where_it_belongs() -> None:
    waltzes = [score for score in pieces() if score.windows[0].beats_per_bar == 3]
    assert 0.03 <= len(waltzes) / len(pieces()) <= 0.13
    assert all(GENRES[score.windows[0].genre].waltz_chance > 0 for score in waltzes)


def correlation(a: list[float], b: tuple[float, ...]) -> float:
    mean_a, mean_b = sum(a) / 12, sum(b) / 12
    above = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread = sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)
    return float(above / (spread**0.5 + 1e-9))


def heard_key(score: Score) -> tuple[int, bool]:
    weights = [0.0] * 12
    for part in score.parts:
        for note in part.notes:
            if not part.is_drum:
                bass = 1.5 if part.role == "bass" else 1.0
                weights[note.pitch % 12] += bass * part.volume * note.velocity * min(note.duration, 1.0)
    fits = {
        (tonic, minor): correlation(weights[tonic:] + weights[:tonic], MINOR if minor else MAJOR)
        for tonic in range(12)
        for minor in (False, True)
    }
    return max(fits, key=lambda key: fits[key])


def relatives(tonic: int, minor: bool) -> set[tuple[int, bool]]:
    relative = ((tonic + 3) % 12, False) if minor else ((tonic + 9) % 12, True)
    return {
        (tonic, minor),
        relative,
        (tonic, not minor),
        ((tonic + 7) % 12, minor),
        ((tonic + 5) % 12, minor),
    }


def test_the_stated_key_is_the_key_heard() -> None:
    exact = near = 0
    for score in pieces():
        name, mode = score.windows[0].keyscale.split()
        tonic, minor = PITCH_NAMES.index(name), mode == "minor"
        heard = heard_key(score)
        exact += heard == (tonic, minor)
        near += heard in relatives(tonic, minor)
    assert exact / len(pieces()) >= 0.75
    assert near / len(pieces()) >= 0.9


def test_held_out_seeds_are_no_training_seeds_and_their_music_is_new() -> None:
    assert HELD_OUT_SEEDS.start >= 10_000_000
    trained = {score.parts for score in pieces()}
    assert not any(compose(seed).parts in trained for seed in HELD_OUT_SEEDS[:100])


def test_swing_is_stated_where_the_genre_swings_and_only_there() -> None:
    for score in pieces():
        for truth in score.windows:
            assert truth.swing == (GENRES[truth.genre].swing != 0.5)
    for seed in range(10):
        late = [
            note.start % 1
            for part in compose(seed, genre="swing_jazz").parts
            for note in part.notes
            if 0.4 < note.start % 1 < 0.9 and not part.is_drum
        ]
        assert all(abs(phase - 0.66) < 0.03 for phase in late)


def test_straight_electronic_genres_lie_exactly_on_the_grid() -> None:
    for seed in range(10):
        for part in compose(seed, genre="techno").parts:
            for note in part.notes:
                ticks = note.start * 96  # sixteenths, their halves and triplets are whole ticks
                assert abs(ticks - round(ticks)) < 0.02


def test_most_windows_have_a_lead_part_and_it_is_named() -> None:
    led = 0
    for score in pieces():
        leads = {part.instrument for part in score.parts if part.role == "lead"}
        led += bool(leads) and all(truth.lead in leads for truth in score.windows)
    assert led / len(pieces()) >= 0.75


def test_every_genre_has_variants_to_choose_from() -> None:
    for genre in GENRES.values():
        assert len(genre.major) >= 3 and len(genre.minor) >= 3
        assert not genre.drums_key or len(genre.grooves) >= 3
        pools = [layer.patterns for layer in genre.layers if layer.role == "lead"]
        assert all(len(pool) >= 3 for pool in pools)
        for pattern in [text for layer in genre.layers for text in layer.patterns]:
            assert parse_pattern(pattern, beats_per_bar=4)[1] % 4 == 0, (genre.id, pattern)


def test_bad_arguments_are_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match="unknown genre 'zouk'"):
        compose(1, genre="zouk")
    with pytest.raises(ValueError, match="windows is 0"):
        compose(1, windows=0)
    with pytest.raises(ValueError, match="unknown chord 'Q7'"):
        parse_chord("Q7", tonic=0, minor=False)


def test_chords_are_spelled_from_their_numerals() -> None:
    assert parse_chord("V7", tonic=0, minor=False).tones == (7, 11, 2, 5)
    assert parse_chord("VI", tonic=9, minor=True).tones == (5, 9, 0)
    assert parse_chord("bII", tonic=4, minor=False).tones == (5, 9, 0)
    assert parse_chord("viio", tonic=0, minor=False).tones == (11, 2, 5)


def test_voicings_move_little_and_keep_to_the_chord() -> None:
    first = voice(parse_chord("I", tonic=0, minor=False), (), centre=60, voices=3)
    second = voice(parse_chord("IV", tonic=0, minor=False), first, centre=60, voices=3)
    assert {pitch % 12 for pitch in second} == {5, 9, 0}
    assert sum(abs(a - b) for a, b in zip(first, second, strict=True)) <= 4


def test_patterns_swing_and_registers_in_closed_form() -> None:
    steps, beats = parse_pattern("x-.x xxx", beats_per_bar=4)
    assert beats == 2
    assert [(step.start, step.length) for step in steps[:2]] == [(0.0, 0.5), (0.75, 0.25)]
    assert [step.triplet for step in steps] == [False, False, True, True, True]
    assert parse_pattern("x x x x", beats_per_bar=3)[1] == 3
    assert Feel(2 / 3, 1.0).place(3.5) == pytest.approx(3 + 2 / 3)
    assert Feel(0.5, 1.0).place(3.25) == 3.25
    assert [nearest_pitch(0, target) for target in (60, 65, 67)] == [60, 60, 72]
    assert into_range(20, 36, 60) == 44


def test_the_command_prints_a_readable_score_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "7", "--genre", "house"]) == 0
    assert "house (electronic)" in capsys.readouterr().out
    assert main(["--seed", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 7
