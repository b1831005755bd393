"""Tempo, key and metre as people write them."""

import itertools

import pytest
from conftest import growth

from riff.music.theory import KEYS, TONICS, canonical_key, parse_bpm, parse_key, parse_time_signature
from riff.utils.errors import RiffError


@pytest.mark.parametrize(
    ("prompt", "bpm"),
    [
        ("lo-fi hip hop, mellow electric piano, 84 bpm", 84.0),
        ("house at 120BPM", 120.0),
        ("120-bpm techno", 120.0),
        ("jazz,84bpm", 84.0),
        ("84.5 bpm", 84.5),
        ("96 beats per minute", 96.0),
        ("96 beats a minute", 96.0),
        ("tempo 90", 90.0),
        ("Tempo: 92.5, strings", 92.5),
        ("at a tempo of 77, please", 77.0),
        ("bpm=100", 100.0),
        ("BPM: 100 techno", 100.0),
        ("♩ = 70", 70.0),
        ("80-90 bpm", 85.0),
        ("80 to 90 bpm", 85.0),
        ("take 2 - 84 bpm", 84.0),
        ("84 bpm, then 120 bpm", 84.0),
        ("0 bpm", 0.0),
        ("８４ bpm", 84.0),
    ],
)
def test_a_stated_tempo_is_read(prompt: str, bpm: float) -> None:
    assert parse_bpm(prompt) == bpm


@pytest.mark.parametrize(
    "prompt",
    ["", "slow", "fast techno", "ibiza at 3am", "808 drums", "80s synthwave", "tempo 3/4", "3/4 bpm",
     "1e3 bpm", "tempo 90s rock", "bpm", "tempo rubato", "84 bpms", "nan bpm", "inf bpm"],
)  # fmt: skip
def test_other_numbers_and_words_are_not_a_tempo(prompt: str) -> None:
    assert parse_bpm(prompt) is None


@pytest.mark.parametrize("template", ["{} bpm", "jazz, {}bpm, warm", "tempo: {}", "at {} beats per minute", "bpm={}."])
def test_every_whole_tempo_is_read_back_from_every_phrasing(template: str) -> None:
    for bpm in range(20, 400):
        assert parse_bpm(template.format(bpm)) == bpm


@pytest.mark.parametrize(
    ("text", "keyscale"),
    [
        ("in F# minor", "F# minor"),
        ("c major", "C major"),
        ("Bb minor", "A# minor"),
        ("A min", "A minor"),
        ("a min", "A minor"),
        ("D-minor", "D minor"),
        ("c sharp minor waltz", "C# minor"),
        ("E-flat major", "D# major"),
        ("in E♭ maj.", "D# major"),
        ("F♯ minor", "F# minor"),
        ("Cb major", "B major"),
        ("B# major", "C major"),
        ("E# minor", "F minor"),
        ("Fb minor", "E minor"),
        ("F#m groove", "F# minor"),
        ("Bbm", "A# minor"),
        ("ballad, Em, slow", "E minor"),
        ("ballad in Am with strings", "A minor"),
        ("slow, a minor", "A minor"),
        ("blues in a minor with organ", "A minor"),
        ("ballad in A minor key", "A minor"),
        ("key of C", "C major"),
        ("key: Bb, 90 bpm", "A# major"),
        ("key of d minor", "D minor"),
        ("C major then A minor", "C major"),
    ],
)
def test_a_stated_key_is_read_and_spelled_with_sharps(text: str, keyscale: str) -> None:
    assert parse_key(text) == keyscale


@pytest.mark.parametrize(
    "text",
    ["", "in a minor key", "a minor blues", "a major hit", "A minor key ballad", "the major",
     "Dorian major key", "I am sad", "Am I dreaming", "at 3am", "Cmaj7", "Dm7 chords", "H minor",
     "key of D dorian", "key of life", "in the key of dreams", "A-team", "minor",
     "5 min", "drum and bass major"],
)  # fmt: skip
def test_words_that_look_like_keys_are_not_keys(text: str) -> None:
    assert parse_key(text) is None


def test_all_24_keys_survive_every_spelling() -> None:
    flats = {"C#": "Db", "D#": "Eb", "F#": "Gb", "G#": "Ab", "A#": "Bb"}
    for keyscale in KEYS:
        tonic, mode = keyscale.split()
        for name, short in itertools.product({tonic, flats.get(tonic, tonic)}, (mode, mode[:3])):
            for spelling in (f"{name} {short}", f"{name.lower()} {short.upper()}", f"{name}-{short}"):
                assert canonical_key(spelling) == keyscale
                assert parse_key(f"piano ballad in {spelling}, 90 bpm") == keyscale


def test_the_canonical_keys_are_fixed_points_and_24() -> None:
    assert len(set(KEYS)) == 24 == 2 * len(TONICS)
    assert [canonical_key(keyscale) for keyscale in KEYS] == list(KEYS)


def test_sharp_raises_and_flat_lowers_by_one_step_around_the_circle() -> None:
    for index, tonic in enumerate(TONICS):
        if len(tonic) == 1:
            assert canonical_key(f"{tonic}# major") == f"{TONICS[(index + 1) % 12]} major"
            assert canonical_key(f"{tonic} flat minor") == f"{TONICS[(index - 1) % 12]} minor"


@pytest.mark.parametrize(("argument", "keyscale"), [(" am ", "A minor"), ("f#m", "F# minor"), ("bbm", "A# minor")])
def test_an_argument_may_be_a_chord_name(argument: str, keyscale: str) -> None:
    assert canonical_key(argument) == keyscale


@pytest.mark.parametrize(
    "argument", ["", "C", "H minor", "in C major", "C major, D minor", "F## minor", "C dorian", None, 7]
)
def test_an_argument_that_is_no_key_is_refused_with_an_example(argument: object) -> None:
    with pytest.raises(RiffError, match=r"key is .*for example 'F# minor'"):
        canonical_key(argument)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "beats"),
    [
        ("3/4", 3), ("a waltz for piano", 3), ("Viennese waltzes", 3), ("ballad in 6/8", 3), ("9/8 jig", 3),
        ("¾ time", 3), ("three-four", 3), ("triple metre", 3), ("a minuet", 3),
        ("", 4), ("4/4", 4), ("a waltz in 4/4", 4), ("12/8 blues", 4), ("13/4", 4), ("waltzing", 4),
        ("house", 4),
    ],
)  # fmt: skip
def test_beats_per_bar(prompt: str, beats: int) -> None:
    assert parse_time_signature(prompt) == beats


@pytest.mark.parametrize("word", [" ", "9", "a minor ", "tempo ", "a b", "80 - "])
def test_a_megabyte_is_read_in_linear_time(word: str) -> None:
    def read(characters: int) -> None:
        text = word * (characters // len(word))
        parse_bpm(text), parse_key(text), parse_time_signature(text)

    assert growth(read, 10**6) < 30
