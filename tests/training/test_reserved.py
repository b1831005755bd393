"""The reserved world is whole music like the other genres', and its existence changes none of theirs."""

import dataclasses
import hashlib
import json

import pytest

from training.composer.arrange import HELD_OUT_SEEDS, compose
from training.composer.captions import vocabulary
from training.composer.gamelan import PELOG
from training.composer.genres import GENRES
from training.composer.genres.reserved import RESERVED
from training.composer.theory import PITCH_NAMES

PIECES = tuple(compose(seed, genre="gamelan", windows=8) for seed in range(60))


def _hash(seeds: range, **how: object) -> str:
    digest = hashlib.sha256()
    for seed in seeds:
        digest.update(json.dumps(dataclasses.asdict(compose(seed, **how))).encode())
    return digest.hexdigest()


def test_the_scores_riff_mini_2_learns_from_stay_what_they_are() -> None:
    """Hashes taken when its training data were made."""
    assert _hash(range(40)) == "f8f6f591259c59774d19227de325a4f04a0b915f39644b6a525fbd2e4d40cd29"
    held_out = range(HELD_OUT_SEEDS.start, HELD_OUT_SEEDS.start + 20)
    assert _hash(held_out) == "4cf957c48d218ec560443237758fcdafd8564c9d5be52f58616071a99e2c6a96"
    named = _hash(range(5), genre="chinese", windows=3)
    assert named == "0cb24f1fac75b8ae02de693fa481b14cc50897ecc10491301fd450688eb66038"


def test_no_seed_and_no_caption_gives_the_reserved_world_away() -> None:
    assert list(RESERVED) == ["gamelan"] and len(GENRES) >= 80 and not set(GENRES) & set(RESERVED)
    assert not {"gamelan", "bali", "balinese", "java", "indonesian", "sarondeng"} & set(vocabulary())


def test_same_seed_gives_the_same_score_and_another_seed_another() -> None:
    assert compose(3, genre="gamelan", windows=8) == PIECES[3]
    assert len({score.parts for score in PIECES}) == len(PIECES)


def test_notes_are_playable_and_stay_in_their_window() -> None:
    for score in PIECES:
        assert score.beats == 64 and 84 <= score.bpm <= 150
        for part in score.parts:
            ends: dict[int, float] = {}
            for note in part.notes:
                end = note.start + note.duration
                assert note.start >= 0 and note.duration > 0.1 and 20 <= note.velocity <= 127
                assert end <= (note.start // 8 + 1) * 8 + 1e-3 and 30 <= note.pitch <= 103
                assert ends.get(note.pitch, 0.0) <= note.start + 1e-3, "a key overlaps itself"
                ends[note.pitch] = end


def test_every_window_tells_the_truth() -> None:
    for score in PIECES:
        for number, truth in enumerate(score.windows):
            sounding = {part.instrument for part in score.parts for note in part.notes if note.start // 8 == number}
            assert (
                set(truth.instruments) == sounding and truth.lead == truth.instruments[0] == score.parts[0].instrument
            )
            assert truth.genre == "gamelan" and truth.has_drums == ("drums" in sounding)


def test_the_keys_play_five_tones_of_pelog_from_the_stated_tonic() -> None:
    for score in PIECES:
        tonic = PITCH_NAMES.index(score.windows[0].keyscale.split()[0])
        melodic = [part for part in score.parts if part.role in ("lead", "arp", "counter", "comp")]
        assert {(note.pitch - tonic) % 12 for part in melodic for note in part.notes} <= set(PELOG)


def test_two_players_interlock_into_every_sixteenth() -> None:
    for score in PIECES:
        if score.windows[1].density == "sparse" or score.windows[1].section == "intro":
            continue
        pair = [part for part in score.parts if part.role in ("arp", "counter")]
        struck = [{round(note.start * 4) for note in part.notes if 8 <= note.start < 16} for part in pair]
        assert struck[0] | struck[1] == set(range(32, 64))
        assert all(len(each) < 32 for each in struck), "neither could play it alone"


def test_a_gong_opens_every_cycle() -> None:
    for score in PIECES:
        gongs = next(part for part in score.parts if part.instrument == "tubular bells")
        for start in range(0, 64, 8):
            assert min(abs(note.start - start) for note in gongs.notes) < 0.02


def test_an_unknown_world_is_refused_with_all_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"unknown genre 'zouk'.*string_quartet, gamelan"):
        compose(1, genre="zouk")
    with pytest.raises(ValueError, match="windows is 0"):
        compose(1, genre="gamelan", windows=0)
