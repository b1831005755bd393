"""What people would type to get a window of music: captions from the truth, attributes dropped at random.

A caption is made in two steps: `choose` decides which attributes are mentioned and in which words, `caption`
puts the words together as comma tags, as a bare row of words, or as a sentence. Wording never says anything
untrue of the window.
"""

from __future__ import annotations

import random
import re
from functools import cache
from typing import TYPE_CHECKING, Literal

from training.composer import genre_words, phrases, words
from training.composer.associations import ASSOCIATIONS
from training.composer.phrases import GenreWording, Wording

if TYPE_CHECKING:
    from training.composer.score import Truth

EvalKind = Literal["plain", "paraphrase", "lead", "key", "tempo", "full"]


def caption(truth: Truth, rng: random.Random) -> str:
    """Write one caption for a window.

    Args:
        truth: what is true of the window.
        rng: source of every choice; the same state gives the same caption.

    Returns:
        One line of plain ASCII text whose words are all in `vocabulary()`.
    """
    wording = choose(truth, rng)
    style = rng.random()
    if style < 0.45:
        text = phrases.tags(wording, rng)
    elif style < 0.60:
        text = phrases.row(wording, rng)
    else:
        text = phrases.sentence(wording, rng)
    if rng.random() < 0.6:
        return text.lower()
    return text[:1].upper() + text[1:]


def choose(truth: Truth, rng: random.Random) -> Wording:
    """Decide which attributes a caption mentions and in which words.

    Args:
        truth: what is true of the window.
        rng: source of every choice.

    Returns:
        The words; at least one attribute is mentioned.
    """
    mentions = _mentions(rng)
    genre, genre_wording, extra = _genre(truth, rng) if mentions["genre"] else ("", "", "")
    density, drums, section = _texture(truth, rng) if mentions["texture"] else ("", "", "")
    bpm, tempo = _tempo(truth.bpm, rng)
    mood, use = _moods(truth.mood, rng) if mentions["mood"] else ("", "")
    return Wording(
        genre=genre,
        genre_wording=genre_wording,
        extra_genre=extra,
        mood=mood,
        use=use,
        lead=_instrument(truth.lead, rng) if mentions["lead"] else "",
        alone=len(truth.instruments) == 1,
        others=_others(truth, rng) if mentions["lead"] else (),
        key=_key(truth.keyscale, rng, mentioned=mentions["key"]),
        bpm=bpm,
        tempo=tempo,
        density=density,
        drums=drums,
        section=section,
        place=_place(truth, rng),
        absence=_absence(truth, rng),
        has_drums=truth.has_drums,
        metre=_metre(truth.beats_per_bar, rng),
        feel=_feel(swing=truth.swing, rng=rng),
    )


def eval_prompt(truth: Truth, rng: random.Random, *, kind: EvalKind) -> str:
    """Write the prompt by which a model is tested for one thing.

    Args:
        truth: what a clip made from the prompt should be like.
        rng: source of every choice.
        kind: "plain" the genre's name and sometimes a mood, "paraphrase" a paraphrase or association without
            any name of the genre, "lead" name and lead instrument, "key" name and key, "tempo" name and bpm,
            "full" all of these.

    Returns:
        The prompt, lower case but for the key.

    Raises:
        ValueError: an unknown kind.
    """
    name = genre_words.NAMES[truth.genre][0]
    bpm = f"{round(truth.bpm)} bpm"
    if kind == "plain":
        extra = rng.choice(("", "", _mood(truth.mood, rng)))
        return f"{extra} {name}".strip()
    if kind == "paraphrase":
        return rng.choice(nameless_wordings(truth.genre))
    if kind == "lead":
        return name + rng.choice((", ", " with ", " featuring ")) + truth.lead
    if kind == "key":
        return name + rng.choice((" in ", ", ", ", in ")) + truth.keyscale
    if kind == "tempo":
        return rng.choice((f"{name}, {bpm}", f"{name} at {bpm}"))
    if kind == "full":
        return f"{name}, {_mood(truth.mood, rng)} {truth.lead}, in {truth.keyscale}, {bpm}"
    raise ValueError(f"unknown kind of evaluation prompt {kind!r}")


def nameless_wordings(genre: str) -> tuple[str, ...]:
    """List the paraphrases and associations of a genre that contain none of its names.

    Args:
        genre: a genre id.

    Returns:
        The phrases, paraphrases first.
    """
    names = "|".join(re.escape(name) for name in genre_words.NAMES[genre])
    named = re.compile(rf"(?<![a-z])(?:{names})(?![a-z])")
    everything = genre_words.PARAPHRASES[genre] + ASSOCIATIONS[genre]
    return tuple(phrase for phrase in everything if not named.search(phrase))


def vocabulary() -> list[str]:
    """List every alphabetic word a caption or evaluation prompt can contain.

    Returns:
        Lower-case words in alphabetical order.
    """
    tables: list[object] = [ASSOCIATIONS, "sharp flat major minor maj min and", sorted(words.FLATS.values())]
    for module in (genre_words, words, phrases):
        tables += [value for name, value in vars(module).items() if name.isupper() and name[0] != "_"]
    # Single letters are the keys; a placeholder such as "{key}" is not a word.
    found = set("abcdefg")
    for text in _strings(tables):
        found.update(re.findall(r"[a-z]+", re.sub(r"\{.*?\}", " ", text).lower()))
    return sorted(found)


def _strings(tree: object) -> list[str]:
    if isinstance(tree, str):
        return [tree]
    if isinstance(tree, dict):
        return [text for pair in tree.items() for branch in pair for text in _strings(branch)]
    if isinstance(tree, (tuple, list, frozenset)):
        return [text for branch in tree for text in _strings(branch)]
    return []


def _mentions(rng: random.Random) -> dict[str, bool]:
    rates = {"genre": 0.80, "lead": 0.65, "key": 0.45, "mood": 0.45, "texture": 0.25}
    found = {name: rng.random() < rate for name, rate in rates.items()}
    return found if any(found.values()) else {**found, "genre": True}


# Last words of synonyms that name no instrument by themselves.
_VAGUE = (
    "player line tone section wave reed bar hit beat groove machine keys chords chorus lead block blocks bottle box "
    "bars eight ensemble glass harmonics kit mute orchestra pan pick picking pulse set stick sub tam triangle upright "
    "drum strumming singing humming woodwind horn horns singer singers voice voices vocals quartet sho"
)


@cache
def _named(phrase: str) -> tuple[frozenset[str], ...]:
    """The instruments that a phrase speaks of, each as the set of those that would make it true."""
    found = []
    for word, owners in _owners().items():
        if re.search(rf"(?<![a-z]){re.escape(word)}s?(?![a-z])", phrase):
            found.append(owners)
    return tuple(found)


@cache
def _owners() -> dict[str, frozenset[str]]:
    """Every word for an instrument, and the instruments it may stand for: "guitar" for any guitar."""
    owners: dict[str, set[str]] = {}
    for name, synonyms in words.INSTRUMENTS.items():
        for word in (name, *synonyms):
            owners.setdefault(word, set()).add(name)
            # "saxophone" is true of an alto saxophone, "strings" of tremolo strings.
            owners.setdefault(word.split()[-1], set()).add(name)
    for word, members in words.GENERIC_INSTRUMENTS.items():
        owners.setdefault(word, set()).update(members)
    # "guitars" is what "guitar" is; the search takes an s after every word.
    plurals = [word for word in owners if word.endswith("s") and word[:-1] in owners]
    for word in (*_VAGUE.split(), *plurals):
        owners.pop(word, None)
    return {word: frozenset(names) for word, names in owners.items()}


_DRUMMING = re.compile(
    r"\b(drum|beat|kick|snare|percussion|tom tom|breakbeat|hi hat|hat|clap|handclap|conga|cymbal)s?\b"
)


def _true_of(phrases: tuple[str, ...] | list[str], truth: Truth) -> list[str]:
    """The phrases that speak of no instrument which is silent, nor of drums where there are none."""
    sounding = set(truth.instruments)
    fitting = [phrase for phrase in phrases if all(owners & sounding for owners in _named(phrase))]
    return fitting if truth.has_drums else [phrase for phrase in fitting if not _DRUMMING.search(phrase)]


def _genre(truth: Truth, rng: random.Random) -> tuple[str, GenreWording, str]:
    names = genre_words.NAMES[truth.genre]
    draw = rng.random()
    # The plain name is half of all names: it is what people type first.
    name = names[0] if rng.random() < 0.5 else rng.choice(names)
    extra = name if rng.random() < 0.08 else ""
    if draw < 0.25 and (fitting := _true_of(ASSOCIATIONS[truth.genre], truth)):
        return rng.choice(fitting), "association", extra
    if draw < 0.45 and (fitting := _true_of(genre_words.PARAPHRASES[truth.genre], truth)):
        return rng.choice(fitting), "paraphrase", extra
    if draw < 0.53:
        keywords = genre_words.KEYWORDS[truth.genre]
        glue = rng.choice((" ", " ", ", "))
        return glue.join(rng.sample(keywords, rng.choice((1, 2, 2, 3)))), "keywords", extra
    family = genre_words.FAMILIES.get(truth.family.lower().replace(" ", ""), ())
    if draw < 0.56 and family:
        return rng.choice(family), "family", extra
    return name, "name", ""


def _mood(mood: str, rng: random.Random) -> str:
    synonyms = words.MOODS.get(mood, (mood,))
    return mood if rng.random() < 0.35 else rng.choice(synonyms)


def _moods(mood: str, rng: random.Random) -> tuple[str, str]:
    """A mood as one adjective or two, or as what one wants the music for, or as a scene."""
    draw = rng.random()
    if draw < 0.14:
        return "", rng.choice(words.USES[mood])
    if draw < 0.22:
        return "", rng.choice(words.SCENES[mood])
    first, second = _mood(mood, rng), _mood(mood, rng)
    if first == second or rng.random() < 0.88:
        return first, ""
    return rng.choice((" and ", ", ")).join((first, second)), ""


def _place(truth: Truth, rng: random.Random) -> str:
    """Where in the piece the window lies, now and then."""
    return rng.choice(words.PLACES[truth.place]) if truth.place and rng.random() < 0.08 else ""


def _absence(truth: Truth, rng: random.Random) -> str:
    """Something that is not there, now and then; a bass that is missing more often, since one expects it."""
    if not truth.has_bass and len(truth.instruments) > 1 and rng.random() < 0.15:
        return rng.choice(words.NO_BASS)
    if rng.random() >= 0.07:
        return ""
    missing = [name for name, members in words.ABSENT.items() if not set(members) & set(truth.instruments)]
    return f"{rng.choice(words.NO)} {rng.choice(missing)}" if missing else ""


def _instrument(name: str, rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.6 or name not in words.INSTRUMENTS:
        return name
    generic = [word for word, members in words.GENERIC_INSTRUMENTS.items() if name in members]
    if draw < 0.72 and generic:
        return rng.choice(generic)
    return rng.choice(words.INSTRUMENTS[name])


def _others(truth: Truth, rng: random.Random) -> tuple[str, ...]:
    rest = [name for name in truth.instruments if name != truth.lead]
    count = min(len(rest), rng.choice((0, 0, 0, 1, 1, 2)))
    found = (_instrument(name, rng) for name in rng.sample(rest, count))
    return tuple(dict.fromkeys(found))


def _key(keyscale: str, rng: random.Random, *, mentioned: bool) -> str:
    note, mode = keyscale.split()
    if not mentioned:
        return rng.choice(words.MODE_WORDS[mode]) if rng.random() < 0.04 else ""
    if note in words.FLATS and rng.random() < 0.4:
        note = words.FLATS[note]
    if len(note) == 2 and rng.random() < 0.3:
        note = f"{note[0]} {'sharp' if note[1] == '#' else 'flat'}"
    if rng.random() < 0.08:
        mode = mode[:3]
    return rng.choice(words.KEY_FORMS).format(key=f"{note} {mode}")


def _tempo(bpm: float, rng: random.Random) -> tuple[str, str]:
    draw = rng.random()
    number = rng.choice(words.BPM_FORMS).format(bpm=round(bpm)) if draw < 0.29 else ""
    fitting = [word for low, high, names in words.TEMPO if low <= bpm <= high for word in names]
    word = rng.choice(fitting) if fitting and 0.26 < draw < 0.42 else ""
    return number, word


def _texture(truth: Truth, rng: random.Random) -> tuple[str, str, str]:
    """Mention one of density, drums and section; the unusual is mentioned more often than the usual."""
    density = rng.choice(words.DENSITY.get(truth.density, (truth.density,)))
    sections = words.SECTIONS.get(truth.section, (truth.section,))
    fitting = [name for name in sections if truth.has_drums or "drum" not in name]
    if truth.section == "full" and len(truth.instruments) < 4:
        fitting = []
    section = rng.choice(fitting or [density])
    if not truth.has_drums:
        drums = rng.choice(words.NO_DRUMS)
    elif truth.instruments == ("drums",):
        drums = rng.choice(words.DRUMS_ONLY)
    else:
        drums = rng.choice(words.WITH_DRUMS)
    weights = (
        0.3 if truth.density == "medium" else 1.0,
        0.4 if truth.has_drums and len(truth.instruments) > 1 else 1.2,
        0.2 if truth.section == "full" else 1.2,
    )
    options = ((density, "", ""), ("", drums, ""), ("", "", section))
    return rng.choices(options, weights)[0]


def _metre(beats_per_bar: int, rng: random.Random) -> str:
    if beats_per_bar == 3:
        return rng.choice(words.WALTZ) if rng.random() < 0.75 else ""
    return rng.choice(words.COMMON_TIME) if rng.random() < 0.03 else ""


def _feel(*, swing: bool, rng: random.Random) -> str:
    if swing:
        return rng.choice(words.SWING) if rng.random() < 0.15 else ""
    return rng.choice(words.STRAIGHT) if rng.random() < 0.02 else ""
