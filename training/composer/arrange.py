"""compose(): choose the layers of a genre, let them play window by window, and tell the truth about it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping

from training.composer.form import Phrase
from training.composer.genres import GENRES
from training.composer.genres.model import Genre, Layer
from training.composer.genres.reserved import RESERVED
from training.composer.humanise import finish
from training.composer.melody import Line, Singer
from training.composer.perform import Player
from training.composer.plan import Plan, make_plan
from training.composer.rhythm import play_fill, play_groove
from training.composer.score import Note, Part, Score, Truth
from training.composer.theory import INSTRUMENTS, key_name
from training.composer.voices import VOICES

HELD_OUT_SEEDS = range(10_000_000, 10_100_000)

_PANS = {"lead": 0.08, "comp": 0.55, "arp": 0.5, "counter": 0.5, "pad": 0.15, "bells": 0.6, "percussion": 0.4}
# Chances that a piece goes without its drums or its bass, that its lead is alone, and that a guest leads it.
_NO_DRUMS, _NO_BASS, _ALONE, _GUEST = 0.06, 0.05, 0.05, 0.1
# Others step back behind a lead, so that one hears (and a classifier sees) who leads.
_BEHIND_A_LEAD = {"comp": 0.84, "arp": 0.82, "pad": 0.8, "counter": 0.85, "bells": 0.85, "drums": 0.88}
_HELD = {"bass": "R---", "lead": "x---", "counter": "x---"}  # how a role plays the last bar; the others hold a chord
# What cannot lead: basses, pads, and what has no melody.
_FOLLOWERS = (
    "bass",
    "pad",
    "gong",
    "timpani",
    "taiko",
    "toms",
    "agogo",
    "wood block",
    "orchestra hit",
    "log drum",
    "bagpipe",
)
_BOTH = ("saw lead", "square lead", "synth bass")  # in General MIDI and among riff's own voices
GUESTS = tuple(
    name for name in INSTRUMENTS if not name.endswith(_FOLLOWERS) and name not in ("tuba", "tremolo strings")
)
_CHANCE_POWER = {"sparse": 2.2, "medium": 1.0, "dense": 0.45}


def compose(seed: int, *, genre: str | None = None, windows: int | None = 2) -> Score:
    """Compose a piece; the same seed gives the same score on every machine.

    Args:
        seed: any integer; HELD_OUT_SEEDS are reserved for evaluation.
        genre: one of GENRES or of RESERVED, or None to let the seed choose one of GENRES.
        windows: number of two-bar windows; eight and more return to their phrases, None is a whole piece of 16 to 32
            bars with phrases that return and an ending.

    Returns:
        The score with one Truth per window.

    Raises:
        ValueError: when the genre is unknown or windows < 1.
    """
    if genre is not None and genre not in GENRES and genre not in RESERVED:
        raise ValueError(f"unknown genre {genre!r}; known: {', '.join([*GENRES, *RESERVED])}")
    if windows is not None and windows < 1:
        raise ValueError(f"windows is {windows}; it must be at least 1")
    if genre is not None and genre in RESERVED:
        return RESERVED[genre](seed, windows or 8)
    rng = random.Random(f"riff composer {seed}")
    drawn = rng.choice(list(GENRES))
    plan = make_plan(GENRES[genre or drawn], windows=windows, rng=rng)
    layers = _choose_layers(plan, rng)
    drums = _has_drums(plan, rng) and not (len(layers) == 1 and layers[0][0].role == "lead")
    muted = _all_muted(plan, layers, drums, rng)
    plan = dataclasses.replace(plan, sections=_honest(plan.sections, muted))
    parts = []
    for number, (layer, instrument) in enumerate(layers):
        silent = {window for window, names in enumerate(muted) if number in names}
        parts.append(_play_layer(layer, instrument, plan=plan, silent=silent, rng=rng))
    if drums:
        parts.append(_play_drums(plan, silent={k for k, names in enumerate(muted) if -1 in names}, rng=rng))
    parts = _mixed([part for part in parts if part.notes])
    truths = tuple(_truth(plan, parts, window) for window in range(len(plan.sections)))
    return Score(seed, len(plan.sections) * plan.window_beats, float(plan.bpm), tuple(parts), truths, plan.genre.mix)


def _choose_layers(plan: Plan, rng: random.Random) -> list[tuple[Layer, str]]:
    chosen: list[tuple[Layer, str]] = []
    for layer in plan.genre.layers:
        chance = layer.chance if layer.role == "lead" else layer.chance ** _CHANCE_POWER[plan.density]
        if not layer.key and (rng.random() >= chance or (plan.solo and layer.role != "lead")):
            continue
        used = {name for _, name in chosen}
        fresh = [name for name in layer.instruments if name not in used]
        # A genre's signature may double an instrument (two hands of a piano), a pad never does.
        options = list(layer.instruments) if layer.key or layer.role == "lead" else fresh
        if layer.role == "lead" and len(set(layer.instruments)) > 1 and rng.random() < _GUEST:
            options = [rng.choice(GUESTS)]
        if options:
            chosen.append((layer, rng.choice(options)))
    if plan.solo:
        return _solo(plan.genre, chosen, rng)
    leads = [pair for pair in chosen if pair[0].role == "lead"]
    if leads and rng.random() < _ALONE:
        return leads[:1]
    if len(chosen) > 2 and rng.random() < _NO_BASS:
        return [pair for pair in chosen if pair[0].role != "bass"]
    return chosen


def _solo(genre: Genre, layers: list[tuple[Layer, str]], rng: random.Random) -> list[tuple[Layer, str]]:
    signature = next(pair for pair in layers if pair[0].key)
    leads = [pair for pair in layers if pair[0].role == "lead" and pair is not signature]
    if leads and rng.random() < 0.5:  # alone: the signature's own instrument sings too, where it may
        lead = leads[0][0]
        if signature[1] in lead.instruments:
            leads = [(lead, signature[1])]
    return [signature, *leads]


def _mixed(parts: list[Part]) -> list[Part]:
    """The lead in front, the others a little behind it."""
    if not any(part.role == "lead" for part in parts):
        return parts
    volumes = [1.0 if part.role == "lead" else part.volume * _BEHIND_A_LEAD.get(part.role, 1.0) for part in parts]
    return [dataclasses.replace(part, volume=round(volume, 3)) for part, volume in zip(parts, volumes, strict=True)]


def _honest(sections: tuple[str, ...], muted: list[set[int]]) -> tuple[str, ...]:
    """An intro or a break in which nobody is silent is called full."""
    return tuple(
        name if silent or name in ("fill", "ending") else "full" for name, silent in zip(sections, muted, strict=True)
    )


def _all_muted(plan: Plan, layers: list[tuple[Layer, str]], drums: bool, rng: random.Random) -> list[set[int]]:
    """The silent layers of every window; in a form a verse has fewer parts than a chorus."""
    optional = [n for n, (layer, _) in enumerate(layers) if not layer.key and layer.role not in ("lead", "bass")]
    resting = {n for n in optional if rng.random() < 0.4}
    found: list[set[int]] = []
    for number, phrase in enumerate(plan.phrases):
        before = plan.phrases[number - 1] if number else None
        muted = _muted(phrase.section, plan, layers, drums, rng)
        if (
            phrase.section in ("intro", "break")
            and before
            and phrase.place == before.place
            and phrase.section == before.section
        ):
            muted = found[-1]
        if phrase.place == "verse" and phrase.section in ("full", "fill"):
            muted = muted | resting
        found.append(muted if len(muted - {-1}) < len(layers) else set())
    return found


def _muted(section: str, plan: Plan, layers: list[tuple[Layer, str]], drums: bool, rng: random.Random) -> set[int]:
    """Numbers of the layers silent in a section; -1 stands for the drums."""
    if section not in ("intro", "break") or len(layers) < 2:
        return set()
    optional = [n for n, (layer, _) in enumerate(layers) if not layer.key and layer.role != "lead"]
    basses = [n for n, (layer, _) in enumerate(layers) if layer.role == "bass" and n != 0]
    leads = [n for n, (layer, _) in enumerate(layers) if layer.role == "lead" and not layer.key]
    muted = {n for n in optional if rng.random() < 0.6}
    if section == "intro":
        muted.update(leads if rng.random() < 0.6 else basses)
        if not plan.genre.drums_key and rng.random() < 0.5:
            muted.add(-1)
    elif plan.genre.drums_key:
        muted.update(basses)
    else:
        muted.update({-1} if rng.random() < 0.6 else basses)
    return muted if drums else muted - {-1}


def _patterns(layer: Layer, plan: Plan) -> tuple[str, ...]:
    return layer.waltz if plan.beats_per_bar == 3 and layer.waltz else layer.patterns


def _play_layer(layer: Layer, name: str, *, plan: Plan, silent: set[int], rng: random.Random) -> Part:
    instrument = INSTRUMENTS[name]
    centre = layer.centre or instrument.centre
    melodic = layer.role in ("lead", "counter")
    reach = 8 if melodic else 5
    centre += plan.temper.shift if melodic else 0
    centre = max(instrument.low + reach, min(instrument.high - reach, centre))
    play = _sing if melodic else _accompany
    notes = play(layer, name, plan=plan, centre=centre, silent=silent, rng=rng)
    finished = finish(notes, plan=plan, drums=False, rng=rng)
    program = layer.program if layer.program >= 0 else instrument.program
    pan = _PANS.get(layer.role, 0.0) * rng.choice((-1, 1)) * rng.uniform(0.7, 1.2)
    voice = name if name in VOICES and (name not in _BOTH or rng.random() < 0.6) else ""
    return Part(layer.role, program, False, name, round(pan, 3), layer.volume, layer.reverb, finished, voice)


def _sing(layer: Layer, name: str, *, plan: Plan, centre: int, silent: set[int], rng: random.Random) -> list[Note]:
    scale = plan.genre.scales[1 if plan.minor else 0]
    line = Line(INSTRUMENTS[name], centre, scale, plan.tonic, layer.velocity, layer.gate, rng.random() < layer.thirds)
    rhythms = rng.sample(layer.patterns, min(2, len(layer.patterns)))
    motifs = {"A": rhythms[0], "B": rhythms[-1], "C": rng.choice(layer.patterns)}
    forms = rng.choice((("AB", "AC"), ("AA", "AB"), ("AB", "CB"), ("AB", "AB"), ("AC", "BC")))
    singers: dict[str, Singer] = {}

    def window(start: int, phrase: Phrase) -> list[Note]:
        singer = singers.setdefault(phrase.letter, Singer(line, feel=plan.feel, rng=rng))
        bars = [(motif, motifs[motif]) for motif in forms[phrase.window % 2]]
        if phrase.section == "ending":
            bars[1] = ("end", "x--- ---- ----" if plan.beats_per_bar == 3 else "x--- ---- ---- ----")
        elif phrase.varied and phrase.window % 2:
            bars[1] = ("varied", rng.choice(layer.patterns))
        return singer.sing(bars, plan.chords, start=start, beats_per_bar=plan.beats_per_bar)

    return _returning(window, plan, silent=silent)


def _accompany(layer: Layer, name: str, *, plan: Plan, centre: int, silent: set[int], rng: random.Random) -> list[Note]:
    player = Player(layer, INSTRUMENTS[name], centre=centre, feel=plan.feel, rng=rng)
    patterns = _patterns(layer, plan)
    chosen = rng.choice(patterns)
    first = True

    def window(start: int, phrase: Phrase) -> list[Note]:
        nonlocal chosen, first
        if not first and rng.random() < 0.25:
            chosen = rng.choice(patterns)
        first = False
        middle, stop = start + plan.beats_per_bar, start + plan.window_beats
        if phrase.section != "ending":
            return player.play(chosen, plan.chords, start=start, stop=stop, beats_per_bar=plan.beats_per_bar)
        held = _HELD.get(layer.role, "c---") + " ----" * (plan.beats_per_bar - 1)
        notes = player.play(chosen, plan.chords, start=start, stop=middle, beats_per_bar=plan.beats_per_bar)
        return notes + player.play(held, plan.chords, start=middle, stop=stop, beats_per_bar=plan.beats_per_bar)

    return _returning(window, plan, silent=silent)


def _returning(play: Callable[[int, Phrase], list[Note]], plan: Plan, *, silent: set[int]) -> list[Note]:
    """Play all windows: what was played to a window of a phrase is played again where it returns unvaried."""
    memory: dict[tuple[str, int], tuple[int, list[Note]]] = {}
    notes: list[Note] = []
    for number, phrase in enumerate(plan.phrases):
        start = number * plan.window_beats
        key = (phrase.letter, phrase.window)
        fresh = phrase.section == "ending" or (phrase.varied and phrase.window % 2 == 1)
        if key in memory and not fresh:
            since, before = memory[key]
            played = [dataclasses.replace(note, start=note.start + start - since) for note in before]
        else:
            played = play(start, phrase)
            if not fresh:
                memory[key] = (start, played)
        if number not in silent:
            notes.extend(played)
    return notes


def _has_drums(plan: Plan, rng: random.Random) -> bool:
    grooves = plan.genre.grooves if plan.beats_per_bar == 4 else plan.genre.waltz_grooves or plan.genre.grooves
    return bool(grooves) and not plan.solo and rng.random() < min(plan.genre.drums_chance, 1 - _NO_DRUMS)


def _play_drums(plan: Plan, *, silent: set[int], rng: random.Random) -> Part:
    genre = plan.genre
    waltz = plan.beats_per_bar == 3 and bool(genre.waltz_grooves)
    grooves = genre.waltz_grooves if waltz else genre.grooves
    played_by = {letter: _thinned(rng.choice(grooves), plan, rng) for letter in ("A", "B", "C")}
    if rng.random() < 0.6:  # the same groove throughout, as in most songs
        played_by = dict.fromkeys(played_by, played_by["A"])
    notes: list[Note] = []
    for window, phrase in enumerate(plan.phrases):
        if window in silent:
            continue
        start, stop = window * plan.window_beats, (window + 1) * plan.window_beats
        groove, beats = played_by[phrase.letter], plan.beats_per_bar
        played = play_groove(groove, start=start, stop=stop, beats_per_bar=beats, feel=plan.feel, rng=rng)
        if phrase.section == "fill":
            begin, fill = play_fill(stop=stop, feel=plan.feel, rng=rng)
            played = [note for note in played if note.start < begin - 1e-6 or note.pitch == 36] + fill
        elif phrase.section == "ending":
            played = [note for note in played if note.start < start + beats - 1e-6]
            played += [Note(float(start + beats), 0.25, 49, 104), Note(float(start + beats), 0.25, 36, 104)]
        elif phrase.window == 0 and (phrase.place == "chorus" or (genre.drums_key and rng.random() < 0.25)):
            played.append(Note(float(start), 0.25, 49, 100))
        notes.extend(played)
    finished = finish(notes, plan=plan, drums=True, rng=rng)
    kit = rng.choice(genre.kits) if genre.kits else ""
    return Part("drums", genre.kit, True, "drums", 0.0, genre.drums_volume, genre.drums_reverb, finished, kit)


def _thinned(groove: Mapping[str, str], plan: Plan, rng: random.Random) -> Mapping[str, str]:
    if plan.density == "sparse" and len(groove) > 3 and rng.random() < 0.5:
        dropped = list(groove)[-1]
        return {lane: pattern for lane, pattern in groove.items() if lane != dropped}
    return groove


def _truth(plan: Plan, parts: list[Part], window: int) -> Truth:
    start, stop = window * plan.window_beats, (window + 1) * plan.window_beats
    weights: dict[str, float] = {}
    leads: list[str] = []
    has_bass = False
    for part in parts:
        sounding = [note for note in part.notes if start <= note.start < stop]
        if sounding:
            has_bass |= part.role == "bass"
            focus = 0.6 if part.role == "bass" else 1.0
            loud = focus * part.volume * sum(note.velocity * min(note.duration, 1.0) for note in sounding)
            weights[part.instrument] = weights.get(part.instrument, 0.0) + loud
            leads += [part.instrument] if part.role == "lead" else []
    ordered = sorted(weights, key=lambda name: (name not in leads, name == "drums", -weights[name]))
    genre = plan.genre
    return Truth(
        genre=genre.id,
        family=genre.family,
        instruments=tuple(ordered),
        lead=ordered[0],
        bpm=float(plan.bpm),
        keyscale=key_name(plan.tonic, plan.minor),
        beats_per_bar=plan.beats_per_bar,
        mood=plan.mood,
        density=plan.density,
        swing=plan.feel.swing != 0.5,
        section=plan.sections[window],
        has_drums="drums" in weights,
        has_bass=has_bass,
        place=plan.phrases[window].place,
    )
