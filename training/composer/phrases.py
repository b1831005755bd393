"""Putting a caption's words together: comma tags, a bare row of words, or a sentence."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from training.composer import words

GenreWording = Literal["name", "paraphrase", "association", "keywords", "family", ""]


@dataclass(frozen=True)
class Wording:
    """The attributes a caption mentions, each already in words; an empty string is an attribute left out."""

    genre: str = ""
    genre_wording: GenreWording = ""
    extra_genre: str = ""
    mood: str = ""
    lead: str = ""
    alone: bool = False
    others: tuple[str, ...] = ()
    key: str = ""
    bpm: str = ""
    tempo: str = ""
    density: str = ""
    drums: str = ""
    section: str = ""
    place: str = ""
    absence: str = ""
    use: str = ""
    has_drums: bool = False
    metre: str = ""
    feel: str = ""


SOME = "some"
OPENERS = (
    *words.OPENERS,
    "play",
    "make",
    "give me",
    "i want",
    "create",
    "generate",
    "compose",
    "here is",
    "please play",
    "can you make",
    "could you play",
    "listen to",
    "this is",
    "write",
    "i need",
    "let me hear",
)
LEAD_FORMS = (
    "with {lead}",
    "with {lead}",
    "on {a_lead}",
    "played on {a_lead}",
    "featuring {lead}",
    "led by {a_lead}",
    "with {a_lead} melody",
    "with {lead} on top",
    "for {lead}",
    "driven by {lead}",
    "and {lead}",
    "with some {lead}",
    "including {lead}",
)
PLAYER_FORMS = ("with {a_lead}", "featuring {a_lead}", "by {a_lead}", "led by {a_lead}", "for {lead}")
PLAYERS = frozenset(
    {
        "pianist",
        "organist",
        "violinist",
        "cellist",
        "harpist",
        "trumpeter",
        "trombonist",
        "saxophonist",
        "player",
        "oboist",
        "clarinetist",
        "flutist",
        "violist",
        "bassoonist",
        "banjoist",
        "fiddler",
        "drummer",
        "singers",
    }
)
LEAD_TAGS = (
    "{lead}",
    "{lead}",
    "{lead}",
    "{lead} melody",
    "{lead} lead",
    "lead {lead}",
    "featuring {lead}",
    "with {lead}",
)
SOLO_FORMS = (
    "for solo {lead}",
    "for {lead} alone",
    "for unaccompanied {lead}",
    "played by solo {lead}",
    "on solo {lead}",
)
SOLO_TAGS = (
    "solo {lead}",
    "just {lead}",
    "only {lead}",
    "solo {lead}",
    "{lead} solo",
    "{lead} alone",
    "unaccompanied {lead}",
)
ASSOCIATION_LINKS = (
    "like",
    "like",
    "for",
    "that sounds like",
    "that feels like",
    "from",
    "inspired by",
    "reminiscent of",
    "in the style of",
    "as in",
)
ASSOCIATION_TAGS = (
    "{text}",
    "{text}",
    "{text}",
    "{text}",
    "{text} vibes",
    "{text} vibe",
    "{text} feel",
    "like {text}",
    "{text} music",
    "{text} atmosphere",
    "{text} mood",
    "something like {text}",
)
PLURAL = frozenset(
    {
        "drums",
        "strings",
        "bells",
        "keys",
        "ivories",
        "pipes",
        "pads",
        "horns",
        "guitars",
        "voices",
        "vocals",
        "singers",
        "violins",
        "bagpipes",
        "chimes",
        "mallets",
        "bars",
        "brass",
        "percussion",
        "panpipes",
        "aahs",
        "kettledrums",
        "pizzicato",
        "singing",
        "whistling",
        "picking",
        "strumming",
        "woodwind",
    }
)


def tags(wording: Wording, rng: random.Random) -> str:
    """Join the words as comma-separated tags: "techno, dark, 130 bpm".

    Args:
        wording: what to mention.
        rng: source of every choice.

    Returns:
        The caption.
    """
    found = _head_tags(wording, rng) + _tail_tags(wording, rng)
    if rng.random() < 0.4:
        rng.shuffle(found)
    return ", ".join(found)


def row(wording: Wording, rng: random.Random) -> str:
    """Set the words in a row without commas, as in "funky jazz saxophone", with the rest as tags.

    Args:
        wording: what to mention.
        rng: source of every choice.

    Returns:
        The caption.
    """
    tempo, late_tempo = _split_tempo(wording.tempo)
    lead = f"solo {wording.lead}" if _says_solo(wording, rng) else wording.lead
    front = _said(wording.density, tempo, wording.mood, wording.genre, lead)
    rest = [f"with {' and '.join(wording.others)}"] if wording.others else []
    late: tuple[str, ...] = (
        wording.drums,
        wording.section,
        wording.metre,
        wording.extra_genre,
        wording.feel,
        late_tempo,
        wording.use,
    )
    late += (wording.place, wording.absence)
    rest += _said(*late)
    ends = _said(wording.key, wording.bpm)
    rng.shuffle(ends)
    glue = " " if rng.random() < 0.4 else ", "
    return glue.join(_said(" ".join(front), *rest, *ends))


def sentence(wording: Wording, rng: random.Random) -> str:
    """Say the words as a sentence: "A dreamy lullaby played on a music box at 70 bpm in F major."

    Args:
        wording: what to mention.
        rng: source of every choice.

    Returns:
        The caption.
    """
    clauses = [_subject(wording, rng)]
    if wording.lead:
        clauses.append(_lead_clause(wording, rng))
    ends = _said(_at(wording.bpm), _in(wording.key))
    rng.shuffle(ends)
    clauses += ends
    _, late_tempo = _split_tempo(wording.tempo)
    late: tuple[str, ...] = (
        wording.drums,
        wording.metre,
        wording.feel,
        wording.section,
        wording.extra_genre,
        late_tempo,
        wording.absence,
    )
    if wording.use.startswith("for "):
        clauses.append(wording.use)
    else:
        late += (wording.use,)
    text = ", ".join([" ".join(clauses), *_said(*late)])
    return text + rng.choice((".", ".", "", "", "", "!" if rng.random() < 0.2 else ""))


def _head_tags(wording: Wording, rng: random.Random) -> list[str]:
    genre = wording.genre
    if wording.genre_wording == "association":
        genre = rng.choice(ASSOCIATION_TAGS).format(text=genre)
    elif genre and rng.random() < 0.12:
        genre = _with_noun(genre, rng, drums=wording.has_drums)
    lead = _lead_tag(wording, rng) if wording.lead else ""
    others = list(wording.others)
    if lead and others and rng.random() < 0.4:
        lead = " and ".join([lead, others.pop(0)])
    mood = wording.mood
    where = rng.random()
    if mood and lead == wording.lead and lead and where < 0.35:
        lead, mood = f"{mood} {lead}", ""
    elif mood and genre and wording.genre_wording != "association" and where < 0.6:
        genre, mood = f"{mood} {genre}", ""
    return _said(genre, mood, lead, *others)


def _tail_tags(wording: Wording, rng: random.Random) -> list[str]:
    about_playing = _said(wording.density, wording.tempo, wording.drums, wording.metre, wording.feel)
    found = about_playing + _said(wording.section, wording.extra_genre, wording.use, wording.place, wording.absence)
    rng.shuffle(found)
    ends = _said(wording.key, wording.bpm)
    rng.shuffle(ends)
    return found + ends


def _subject(wording: Wording, rng: random.Random) -> str:
    tempo, _ = _split_tempo(wording.tempo)
    adjectives = _said(wording.density, tempo, wording.mood)
    if rng.random() < 0.15:
        adjectives.insert(0, rng.choice(words.FILLER_ADJECTIVES))
    if wording.genre_wording == "association":
        noun = _noun(rng, drums=wording.has_drums)
        body = f"{noun} {rng.choice(ASSOCIATION_LINKS)} {wording.genre}"
    elif wording.genre:
        body = noun = wording.genre
        if rng.random() < 0.5:
            body = noun = _with_noun(wording.genre, rng, drums=wording.has_drums)
    else:
        body = noun = _noun(rng, drums=wording.has_drums)
    phrase = " ".join([*adjectives, body])
    if noun.split()[-1] in words.COUNTABLE:
        phrase = f"{_article(phrase)} {phrase}" if rng.random() < 0.8 else phrase
    elif rng.random() < 0.15:
        phrase = f"{SOME} {phrase}"
    if rng.random() < 0.25:
        phrase = f"{rng.choice(OPENERS)} {phrase}"
    return phrase


def _said(*texts: str) -> list[str]:
    return [text for text in texts if text]


def _split_tempo(tempo: str) -> tuple[str, str]:
    return ("", tempo) if tempo in words.TEMPO_ENDS else (tempo, "")


def _with_noun(genre: str, rng: random.Random, *, drums: bool) -> str:
    if genre.split()[-1] in words.COUNTABLE | words.MASS_NOUNS:
        return genre
    return f"{genre} {_noun(rng, drums=drums)}"


def _noun(rng: random.Random, *, drums: bool) -> str:
    return rng.choice(words.DRUM_NOUNS if drums and rng.random() < 0.3 else words.NOUNS)


def _lead_clause(wording: Wording, rng: random.Random) -> str:
    lead = wording.lead
    last = lead.split()[-1]
    with_article = lead if last in PLURAL else f"{_article(lead)} {lead}"
    forms = PLAYER_FORMS if last in PLAYERS else LEAD_FORMS
    if _says_solo(wording, rng):
        forms = SOLO_FORMS
    clause = rng.choice(forms).format(lead=lead, a_lead=with_article)
    if not wording.others:
        return clause
    if len(wording.others) == 1:
        return f"{clause} and {wording.others[0]}"
    return f"{clause}, {wording.others[0]} and {wording.others[1]}"


def _lead_tag(wording: Wording, rng: random.Random) -> str:
    lead = wording.lead
    if lead.split()[-1] in ("lead", "solo") or lead.split()[0] in ("solo", "lead"):
        return lead
    forms = SOLO_TAGS if _says_solo(wording, rng) else LEAD_TAGS
    return rng.choice(forms).format(lead=lead)


def _says_solo(wording: Wording, rng: random.Random) -> bool:
    """Whether a lead that is alone is said to be."""
    taken = {"solo", "lead"} & set(wording.lead.split())
    return bool(wording.lead) and wording.alone and not taken and rng.random() < 0.75


def _at(bpm: str) -> str:
    return bpm if not bpm or bpm.startswith("at ") else f"at {bpm}"


def _in(key: str) -> str:
    if not key or key.startswith("in "):
        return key
    return f"in {key.replace('key: ', '')}" if not key.startswith("key of") else f"in the {key}"


def _article(phrase: str) -> str:
    return "an" if phrase[:1].lower() in "aeiou" or phrase[:1] == "8" else "a"
