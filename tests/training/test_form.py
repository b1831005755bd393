"""Pieces have a form: phrases return, an intro thins, an ending holds; excerpts come from all of it."""

from __future__ import annotations

import random
import re
from functools import lru_cache

import pytest

from training.composer.arrange import GUESTS, HELD_OUT_SEEDS, compose
from training.composer.captions import caption
from training.composer.excerpt import cut, excerpts
from training.composer.form import WHOLE_FORMS, make_form
from training.composer.genres import FIRST_GENRES, GENRES
from training.composer.score import Score
from training.composer.theory import INSTRUMENTS
from training.composer.words import ABSENT


@lru_cache(maxsize=1)
def pieces() -> tuple[Score, ...]:
    genres = tuple(GENRES)
    return tuple(compose(seed, genre=genres[seed % len(genres)], windows=None) for seed in range(2 * len(genres)))


def bars(score: Score) -> int:
    return 2 * len(score.windows)


def notes_in(score: Score, role: str, window: int) -> list[tuple[float, int]]:
    beats = 2 * score.windows[0].beats_per_bar
    return [
        (round(note.start - window * beats, 2), note.pitch)
        for part in score.parts
        if part.role == role
        for note in part.notes
        if window * beats <= note.start < (window + 1) * beats
    ]


def test_whole_pieces_have_16_to_32_bars_and_an_ending() -> None:
    assert all(16 <= bars(score) <= 32 for score in pieces())
    assert all(score.windows[-1].section == "ending" for score in pieces())
    sections = {truth.section for score in pieces() for truth in score.windows}
    places = {truth.place for score in pieces() for truth in score.windows}
    assert sections == {"intro", "full", "break", "fill", "ending"} and places == {"", "verse", "chorus", "bridge"}


@pytest.mark.parametrize("form", WHOLE_FORMS)
def test_every_form_returns_to_its_first_phrase(form: str) -> None:
    assert form.replace("'", "").split().count("A") >= 2


def test_a_phrase_returns_note_for_note_where_it_is_not_varied() -> None:
    again = changed = 0
    for seed in range(12):  # techno has no human errors
        score = compose(seed, genre="techno", windows=None)
        basses = [tuple(notes_in(score, "bass", window)) for window in range(len(score.windows))]
        played = [notes for notes in basses if notes]
        again += len(set(played)) < len(played)
        changed += len(set(played)) > 1
    assert again >= 10 and changed >= 10


def test_the_last_bar_is_held() -> None:
    for score in pieces():
        beats = score.windows[0].beats_per_bar
        starts = [note.start for part in score.parts for note in part.notes if note.start >= score.beats - beats]
        assert all(start < score.beats - beats + 0.6 for start in starts)


def test_a_lead_sounds_in_every_bar_of_its_windows() -> None:
    silent = windows = 0
    for score in pieces():
        beats = score.windows[0].beats_per_bar
        for number, truth in enumerate(score.windows):
            notes = [note for part in score.parts if part.instrument == truth.lead for note in part.notes]
            if notes_in(score, "lead", number):
                windows += 1
                for bar in (2 * number, 2 * number + 1):
                    at, end = bar * beats, (bar + 1) * beats
                    silent += not any(note.start < end and note.start + note.duration > at + 0.05 for note in notes)
    assert windows > 500 and silent == 0


def test_short_pieces_are_one_phrase() -> None:
    rng = random.Random(0)
    for windows in (1, 2, 5):
        phrases = make_form(windows, fills=True, rng=rng)
        assert len(phrases) == windows and {phrase.letter for phrase in phrases} == {"A"}
        assert all(not phrase.place for phrase in phrases)
    assert len(make_form(20, fills=True, rng=rng)) == 20


def test_excerpts_are_the_pieces_own_windows_with_what_rings_into_them() -> None:
    for seed in range(20):
        whole = compose(seed, windows=None)
        found = excerpts(seed, count=3, windows=2)
        assert found == excerpts(seed, count=3, windows=2) and len(found) == 3
        texts = [score.windows for score in found]
        assert all(len(windows) == 2 for windows in texts)
        at = 0
        for score in found:
            starts = [n for n in range(at, len(whole.windows) - 1) if cut(whole, n, n + 2) == score]
            assert starts, "in order and without overlap"
            at = starts[0] + 2
            assert score.beats == 4 * score.windows[0].beats_per_bar and score.bpm == whole.bpm
            first = min(note.start for part in score.parts for note in part.notes)
            assert -2 * score.windows[0].beats_per_bar <= first


def test_excerpts_come_from_all_places() -> None:
    truths = [truth for seed in range(300) for score in excerpts(seed) for truth in score.windows]
    shares = {
        name: sum(truth.section == name for truth in truths) / len(truths) for name in ("intro", "ending", "break")
    }
    assert all(0.01 < share < 0.25 for share in shares.values()), shares
    assert sum(len(truth.instruments) == 1 for truth in truths) / len(truths) > 0.03
    assert sum(not truth.has_drums for truth in truths) > 100 and sum(not truth.has_bass for truth in truths) > 100


def test_what_is_said_to_be_missing_is_silent() -> None:
    rng, said = random.Random(4), 0
    for score in pieces():
        for truth in score.windows:
            text = caption(truth, rng).lower()
            for name, members in ABSENT.items():
                if re.search(rf"\b(no|without|without any) {name}\b", text):
                    said += 1
                    assert not set(members) & set(truth.instruments), text
            if re.search(r"\b(no|without) bass\b|bassless", text):
                assert not truth.has_bass, text
    assert said > 30


def test_a_place_is_said_only_where_it_is() -> None:
    rng = random.Random(5)
    for score in pieces():
        for truth in score.windows:
            text = caption(truth, rng)
            assert "outro" not in text or truth.section == "ending"
            assert "refrain" not in text or truth.place == "chorus"


def test_a_lead_that_is_alone_is_mostly_said_to_be_solo() -> None:
    alone = [truth for score in pieces() for truth in score.windows if len(truth.instruments) == 1]
    rng = random.Random(6)
    texts = [(truth, caption(truth, rng).lower()) for truth in alone for _ in range(20)]
    said = [any(word in text for word in ("solo", "alone", "unaccompanied", "just ", "only ")) for _, text in texts]
    assert len(alone) > 20 and sum(said) / len(said) > 0.3


def test_the_thirty_genres_of_riff_mini_1_are_known() -> None:
    assert len(FIRST_GENRES) == 30 and FIRST_GENRES[0] == "swing_jazz" and set(FIRST_GENRES) < set(GENRES)


def test_nearly_every_melodic_instrument_may_lead() -> None:
    programs = {INSTRUMENTS[name].program for name in INSTRUMENTS}
    assert len(programs) >= 95 and len(GUESTS) > 80
    assert not any(seed in HELD_OUT_SEEDS for seed in range(1000))
