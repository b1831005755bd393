"""Captions tell the truth, in words of a closed vocabulary, in the proportions they promise."""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import lru_cache

import pytest

from riff.music.theory import parse_bpm, parse_key, parse_time_signature
from training.composer import genre_words, words
from training.composer.arrange import compose
from training.composer.associations import ASSOCIATIONS
from training.composer.captions import EvalKind, caption, choose, eval_prompt, nameless_wordings, vocabulary
from training.composer.genres import GENRES
from training.composer.score import Truth
from training.composer.theory import INSTRUMENTS

PITCHES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
KEY = re.compile(r"(?<![a-z0-9])([a-g])(#|b| sharp| flat)? (maj|min)(?:or)?(?![a-z])")
KINDS: tuple[EvalKind, ...] = ("plain", "paraphrase", "lead", "key", "tempo", "full")
README_PROMPTS = (
    "lo-fi hip hop, mellow electric piano, 84 bpm",
    "lo-fi hip hop, mellow electric piano",
    "funky jazz saxophone",
    "church bells",
    "techno",
    "ibiza at 3am",
    "scott joplin style ragtime piano",
    "ancient chinese hymn",
    "lo-fi beat for the holidays",
)
QUERY_WORDS = """
music song beat loop track instrumental melody groovy chill funky smooth relaxing dark happy sad upbeat slow
fast epic calm energetic dreamy ambient techno house trance jazz rock metal blues funk disco soul reggae salsa
folk country bluegrass celtic irish flamenco spanish chinese asian classical baroque orchestral orchestra
symphony cinematic movie film trailer soundtrack piano guitar acoustic electric bass drums drum synth organ
violin cello flute clarinet trumpet trombone saxophone sax strings choir harp bells bell banjo fiddle
harmonica accordion koto marimba vibraphone xylophone glockenspiel harpsichord rhodes hammond oboe
bassoon recorder whistle bagpipes brass horns horn percussion kit vocals voices solo intro break breakdown
fill chorus drop waltz swing shuffle swung straight minor major key sharp flat bpm tempo beats per minute time
meter uptempo mid adagio allegro presto largo andante lo fi lofi hip hop boom bap trap rap study studying
rainy night vinyl cozy coffee club party dance dancing dancefloor dj rave festival warehouse berlin ibiza
detroit chicago london tokyo paris miami brooklyn bronx atlanta memphis nashville kentucky mississippi harlem
manhattan orleans havana cuba cuban rio brazil brazilian jamaica jamaican kingston caribbean island beach
sunset sunrise midnight morning sunday saturday christmas holidays easter church cathedral chapel hymn gospel
gregorian monks chant prayer angels heaven wedding funeral bedtime baby cradle nursery lullaby kids children
sleep sleepy sleeping sweet gentle soft tender delicate warm bright romantic sensual passionate melancholic
melancholy nostalgic vintage retro old school modern futuristic neon cyberpunk city street underground
industrial acid deep hypnotic psychedelic minimal minimalist sparse busy dense full rich lush layered complex
simple heavy hard aggressive angry brutal intense powerful driving heroic triumphant majestic mysterious eerie
haunting spooky creepy tense suspenseful dramatic playful quirky cute silly bouncy fun joyful cheerful sunny
uplifting hopeful inspiring motivational euphoric blissful peaceful serene soothing tranquil meditation
meditative zen yoga spa space cosmos ocean forest mountain mountains river rain snow moon stars fire campfire
western cowboy saloon ragtime stride vaudeville boogie viking battle knights dragon castle king royal court
palace medieval fantasy adventure adventurous hero pirates video game arcade nintendo pixel chiptune boss
fight level synthwave eighties nineties seventies jungle breakbeat liquid amen arpeggios arpeggiated supersaw
pad pads lead sub kick hats snare congas cowbell clave montuno riff riffs distorted overdriven clean muted
palm slap walking upright double plucked pizzicato fingerpicked strummed strumming picking bowed ensemble
section band quartet trio combo concert hall stadium garage punk grunge indie alternative thrash doom
shredding anthem ballad tune jig reel theme nocturne sonata etude prelude fugue concerto suite bach vivaldi
mozart beethoven chopin debussy satie handel joplin ellington basie marley dylan drone soundscape atmospheric
ethereal floating spacey airy emotional soulful expressive elegant classy sophisticated cool jazzy bluesy
latin tropical samba bossa nova mambo son ska dub roots offbeat one syncopated on the a an with no without and
in at for like style vibe vibes feel mood some nice good beautiful play make create generate give me want
please
"""


def random_truth(rng: random.Random, *, genre: str | None = None) -> Truth:
    names = tuple(words.INSTRUMENTS)
    lead, *others = rng.sample(names, rng.choice((1, 3, 4)))
    return Truth(
        genre=genre or rng.choice(tuple(genre_words.NAMES)),
        family=rng.choice(tuple(genre_words.FAMILIES)),
        instruments=(lead, *others),
        lead=lead,
        bpm=rng.randint(50, 180),
        keyscale=f"{rng.choice(PITCHES)} {rng.choice(('major', 'minor'))}",
        beats_per_bar=rng.choice((3, 4, 4, 4)),
        mood=rng.choice(tuple(words.MOODS)),
        density=rng.choice(tuple(words.DENSITY)),
        swing=rng.random() < 0.3,
        section=rng.choice(("intro", "full", "full", "break", "fill", "ending")),
        place=rng.choice(("", "verse", "chorus", "bridge")),
        has_bass=any("bass" in name for name in (lead, *others)),
        has_drums="drums" in (lead, *others),
    )


@lru_cache
def composed(count: int) -> list[tuple[Truth, str]]:
    """Captions of what the composer really writes, every genre in turn."""
    rng = random.Random(30)
    genres = tuple(GENRES)
    scores = [compose(seed, genre=genres[seed % len(genres)]) for seed in range(count)]
    return [(truth, caption(truth, rng)) for score in scores for truth in score.windows for _ in range(10)]


@lru_cache
def samples(count: int) -> list[tuple[Truth, str]]:
    rng = random.Random(20)
    truths = [random_truth(rng) for _ in range(count)]
    return [(truth, caption(truth, rng)) for truth in truths]


def alphabetic(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+", text.lower()))


def test_the_same_random_state_gives_the_same_caption() -> None:
    truth = random_truth(random.Random(3))
    first = [caption(truth, random.Random(seed)) for seed in range(50)]
    assert first == [caption(truth, random.Random(seed)) for seed in range(50)]
    assert len(set(first)) > 40


def test_captions_and_prompts_stay_inside_the_vocabulary() -> None:
    known = set(vocabulary())
    assert 3500 <= len(known) <= 4500
    for truth, text in samples(6000):
        assert text.isascii() and text == text.strip() and "'" not in text and "  " not in text and "{" not in text
        assert alphabetic(text) <= known, text
        for kind in KINDS:
            prompt = eval_prompt(truth, random.Random(len(text)), kind=kind)
            assert alphabetic(prompt) <= known, prompt


def test_the_composer_and_the_words_know_the_same_attributes() -> None:
    assert set(GENRES) == set(genre_words.NAMES)
    assert {genre.family for genre in GENRES.values()} == set(genre_words.FAMILIES)
    assert {mood for genre in GENRES.values() for mood in genre.moods} == set(words.MOODS)
    played = {name for genre in GENRES.values() for layer in genre.layers for name in layer.instruments}
    assert played <= set(INSTRUMENTS) and set(INSTRUMENTS) | {"drums"} == set(words.INSTRUMENTS)
    for truth, _ in composed(300):
        assert truth.density in words.DENSITY and truth.section in words.SECTIONS


def test_what_riff_reads_in_a_caption_is_the_truth() -> None:
    keys = tempi = threes = 0
    for truth, text in composed(300) + samples(6000):
        key, bpm = parse_key(text), parse_bpm(text)
        assert key in (None, truth.keyscale), text
        assert bpm in (None, truth.bpm), text
        keys += key is not None
        tempi += bpm is not None
        if parse_time_signature(text) == 3:
            threes += 1
            assert truth.beats_per_bar == 3, text
    assert keys > 0.42 * 12_000 and tempi > 0.25 * 12_000 and threes > 500


def test_nearly_all_of_the_vocabulary_is_seen_in_a_few_captions() -> None:
    seen = Counter(word for _, text in samples(30_000) + composed(1500) for word in alphabetic(text))
    rare = [word for word in vocabulary() if seen[word] < 3]
    assert len(rare) < 0.01 * len(vocabulary()), rare


@pytest.mark.parametrize("prompt", README_PROMPTS)
def test_example_prompts_are_known(prompt: str) -> None:
    assert alphabetic(prompt) <= set(vocabulary())


def test_common_query_words_are_known() -> None:
    asked = set(QUERY_WORDS.split())
    assert len(asked) >= 400
    assert not asked - set(vocabulary())


def test_a_mentioned_key_is_the_true_key_and_the_only_one() -> None:
    mentioned = 0
    for truth, text in samples(6000):
        keys = KEY.findall(text.lower())
        if not keys:
            continue
        mentioned += 1
        assert len(keys) == 1, text
        note, accidental, mode = keys[0]
        shift = {"#": 1, " sharp": 1, "b": -1, " flat": -1, "": 0}[accidental]
        found = PITCHES[(SEMITONES[note] + shift) % 12]
        assert f"{found} {mode}" == truth.keyscale[:-2], text
    assert 0.40 < mentioned / 6000 < 0.50


def test_a_mentioned_tempo_is_the_true_tempo() -> None:
    for truth, text in samples(6000):
        for number in re.findall(r"(\d+) ?(?:bpm|beats)|\btempo:? (\d+)", text.lower()):
            assert int("".join(number)) == truth.bpm, text
    for low, high, names in words.TEMPO:
        assert low < high and names


def test_tempo_words_fit_the_tempo() -> None:
    rng = random.Random(5)
    for _ in range(4000):
        truth = random_truth(rng)
        word = choose(truth, rng).tempo
        if "slow" in word:
            assert truth.bpm <= 90
        if "fast" in word:
            assert truth.bpm >= 126
        if "mid" in word:
            assert 84 <= truth.bpm <= 122


def test_drums_metre_and_solos_are_mentioned_only_where_true() -> None:
    three = waltz = 0
    for truth, text in samples(6000):
        low = text.lower()
        if re.search(r"\bno drum|without drum|drumless|\bno percussion|without percussion", low):
            assert not truth.has_drums, text
        if re.search(r"with drums|with a beat|with a drum|drum fill", low):
            assert truth.has_drums, text
        if "unaccompanied" in low or " alone" in low:
            assert len(truth.instruments) == 1, text
        said_three = bool(re.search(r"waltz|3/4|triple\b", low))
        three += truth.beats_per_bar == 3
        waltz += said_three
        assert truth.beats_per_bar == 3 or not said_three, text
        assert truth.beats_per_bar == 4 or not re.search(r"4/4|common time", low), text
    assert waltz / three > 0.65


def test_attributes_are_mentioned_as_often_as_promised() -> None:
    rng = random.Random(9)
    found = [choose(random_truth(rng), rng) for _ in range(6000)]
    rates = {
        "genre": (0.80, sum(bool(one.genre) for one in found)),
        "lead": (0.65, sum(bool(one.lead) for one in found)),
        "key": (0.45, sum(bool(one.key) for one in found)),
        "tempo": (0.40, sum(bool(one.bpm or one.tempo) for one in found)),
        "mood": (0.45, sum(bool(one.mood or one.use) for one in found)),
        "texture": (0.25, sum(bool(one.density or one.drums or one.section) for one in found)),
    }
    for name, (promised, count) in rates.items():
        assert abs(count / 6000 - promised) < 0.1 * promised, name
    named = [one for one in found if one.genre]
    associations = sum(one.genre_wording == "association" for one in named)
    assert 0.22 < associations / len(named) < 0.28


def test_every_genre_has_names_paraphrases_keywords_and_associations() -> None:
    assert len(genre_words.NAMES) >= 80
    assert set(genre_words.NAMES) == set(genre_words.PARAPHRASES) == set(genre_words.KEYWORDS) == set(ASSOCIATIONS)
    assert sum(len(phrases) for phrases in ASSOCIATIONS.values()) >= 300
    for genre in ASSOCIATIONS:
        assert len(ASSOCIATIONS[genre]) >= 8 and len(genre_words.PARAPHRASES[genre]) >= 6
        assert len(nameless_wordings(genre)) >= 12


@pytest.mark.parametrize("table", [ASSOCIATIONS, genre_words.PARAPHRASES, genre_words.NAMES, genre_words.KEYWORDS])
def test_no_phrase_points_at_two_genres(table: dict[str, tuple[str, ...]]) -> None:
    counts = Counter(phrase for phrases in table.values() for phrase in phrases)
    assert [phrase for phrase, count in counts.items() if count > 1] == []


def test_phrases_claim_nothing_about_tempo_key_metre_or_drums() -> None:
    claims = re.compile(r"\b(slow|slowly|fast|major|minor|waltz|bpm|drumless|sparse|dense)\b|no drums|without")
    for table in (ASSOCIATIONS, genre_words.PARAPHRASES, genre_words.NAMES, genre_words.KEYWORDS):
        for phrases in table.values():
            assert [phrase for phrase in phrases if claims.search(phrase)] == []


def test_paraphrases_avoid_every_name_of_their_genre() -> None:
    for genre, phrases in genre_words.PARAPHRASES.items():
        assert set(phrases) <= set(nameless_wordings(genre)), set(phrases) - set(nameless_wordings(genre))


def test_moods_and_instruments_have_enough_words_and_no_instrument_word_means_another() -> None:
    assert all(len(set(names)) >= 5 for names in words.MOODS.values())
    assert len(words.INSTRUMENTS) >= 60
    meanings: dict[str, set[str]] = {}
    for name, synonyms in words.INSTRUMENTS.items():
        for word in {name, *synonyms}:
            meanings.setdefault(word, set()).add(name)
    shared = {word for word, names in meanings.items() if len(names) > 1}
    assert shared == {"saxophone", "sax"}


def test_evaluation_prompts_ask_for_one_thing() -> None:
    rng = random.Random(11)
    for _ in range(1000):
        truth = random_truth(rng)
        name = genre_words.NAMES[truth.genre][0]
        prompts = {kind: eval_prompt(truth, rng, kind=kind) for kind in KINDS}
        assert all(name in prompt for kind, prompt in prompts.items() if kind != "paraphrase")
        assert prompts["paraphrase"] in nameless_wordings(truth.genre)
        assert truth.lead in prompts["lead"] and truth.keyscale in prompts["key"]
        assert f"{truth.bpm} bpm" in prompts["tempo"]
    with pytest.raises(ValueError, match="nonsense"):
        eval_prompt(truth, rng, kind="nonsense")  # type: ignore[arg-type]
