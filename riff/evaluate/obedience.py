"""Does the music do what was requested? Tempo, key, genre and instruments, as requested and as detected."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from riff.evaluate.figures import Figure, detector_accuracy, mean_figure, share_figure
from riff.evaluate.sounds import Sound
from riff.music.key import detect_key, mirex_key_score
from riff.music.tempo_estimation import measure_tempo
from riff.music.theory import canonical_key, parse_bpm, parse_key
from riff.utils.errors import RiffError

if TYPE_CHECKING:
    from riff.evaluate.embeddings import Clap
    from riff.music.tagger import Tagger, Tags

PRESENT = 0.5  # probability from which the tagger detects an instrument
MOST = 60.0  # seconds of a sound that are detected
OCTAVES = (1 / 3, 1 / 2, 1.0, 2.0, 3.0)


@dataclasses.dataclass(frozen=True)
class Requested:
    """What was requested of a clip; None or empty where nothing was.

    Attributes:
        prompt: the words.
        bpm: beats per minute.
        keyscale: such as "F# minor".
        genres: names of the tagger, any of which the prompt means.
        instruments: for each instrument that the prompt names, those of the tagger that it may mean.
    """

    prompt: str = ""
    bpm: float | None = None
    keyscale: str | None = None
    genres: tuple[str, ...] = ()
    instruments: tuple[tuple[str, ...], ...] = ()


@dataclasses.dataclass(frozen=True)
class Detected:
    """What was measured of a clip; None where it could not be.

    Attributes:
        bpm: beats per minute, of which the metrical level is a guess.
        keyscale: such as "F# minor".
        genre: the tagger's most probable.
        instruments: those the tagger detects, with "drums".
    """

    bpm: float | None = None
    keyscale: str | None = None
    genre: str | None = None
    instruments: frozenset[str] = frozenset()


def requested_of(fields: Mapping[str, str]) -> Requested:
    """What was requested of a clip.

    Args:
        fields: any of prompt, bpm, keyscale and genre as text, such as a sound's metadata. A tempo or key of its own
            counts before one in the prompt; what cannot be read counts as not requested.
    """
    prompt = fields.get("prompt", "")
    return Requested(
        prompt,
        _number(fields.get("bpm")) or parse_bpm(prompt),
        _key(fields.get("keyscale")) or parse_key(prompt),
        genres_in(fields.get("genre") or prompt),
        instruments_in(prompt),
    )


def detect(sound: Sound, tagger: Tagger | None = None) -> Detected:
    """Measure what can be requested, in a minute of a longer sound: the middle, the first for genre and instruments.

    Args:
        sound: the clip.
        tagger: detects key, genre and instruments; without one the key is that of the pitch classes.
    """
    whole, sound = sound, sound.middle(MOST)
    try:
        bpm: float | None = measure_tempo(sound.waveform, sound.sample_rate)
    except RiffError:  # silence has no tempo
        bpm = None
    try:
        keyscale: str | None = detect_key(sound.waveform, sound.sample_rate, tagger=tagger, bpm=bpm)
    except RiffError:
        keyscale = None
    if tagger is None:
        return Detected(bpm, keyscale)
    try:
        tags = _tags(whole, tagger, bpm)
    except RiffError:
        return Detected(bpm, keyscale)
    detected = frozenset(name for name, chance in tags.instruments.items() if chance >= PRESENT)
    return Detected(bpm, keyscale, tags.genre, detected)


def _tags(sound: Sound, tagger: Tagger, measured: float | None) -> Tags:
    """The tagger's verdict on the first minute.

    It needs to know where bars begin. What riff drew begins with one, at a tempo that it says; elsewhere the start is
    tried at the measured tempo, and the downbeat that is tracked, and the verdict that is surer of its genre counts.
    """
    first = sound.waveform[..., : round(MOST * sound.sample_rate)]

    def on_grid(bpm: float) -> Tags:
        image = tagger.image_of(first, sound.sample_rate, bpm=min(max(bpm, 20.0), 400.0), downbeat=0.0)
        return tagger.tag_images(image[None])[0]

    told = _number(sound.metadata.get("bpm"))
    if told is not None and "model" in sound.metadata and "task" not in sound.metadata:
        return on_grid(told)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no beat was found is no news here
        verdicts = [on_grid(measured or 120.0), tagger.tag(first, sound.sample_rate)]
    return max(verdicts, key=lambda tags: tags.genres[tags.genre])


def obedience(requested: Sequence[Requested], detected: Sequence[Detected]) -> list[Figure]:
    """Shares of what was requested that was detected; what was not requested counts in no share.

    Args:
        requested: one of each clip.
        detected: of the same clips, in the same order.

    Returns:
        Figures, each with its detector's own accuracy; those of which nothing was requested are NaN with n = 0.
    """
    pairs = list(zip(requested, detected, strict=True))
    told = "of clips of which a {} was requested; one in which none can be detected is a miss."
    figures = [
        _tempo_share("Tempo within 1 %", pairs, 0.01, (1.0,), "Measured beats per minute within 1 % " + told),
        _tempo_share("Tempo within 4 %", pairs, 0.04, (1.0,), "As MIREX's accuracy 1, within 4 %, " + told),
        _tempo_share("Tempo within 1 %, any octave", pairs, 0.01, OCTAVES, "At 1/3, 1/2, 2 or 3 times it too, " + told),
        _tempo_share(
            "Tempo within 4 %, any octave", pairs, 0.04, OCTAVES, "MIREX's accuracy 2, at 1/3, 1/2, 2 or 3 too, " + told
        ),
        share_figure(
            "Key exact", _key_scores(pairs, 1.0), "The measured key is the requested one, " + told.format("key")
        ),
        mean_figure(
            "Key, MIREX score",
            [_mirex(requested, found) for requested, found in pairs if requested.keyscale],
            "",
            "1 for the requested key, 0.5 a fifth above, 0.3 the relative and 0.2 the parallel one (MIREX 2005).",
        ),
        share_figure(
            "Genre (riff's tagger)",
            [found.genre in requested.genres for requested, found in pairs if requested.genres and found.genre],
            "The tagger's most probable genre is one that the prompt names; only genres that it knows are counted.",
        ),
        *_instrument_figures(pairs),
    ]
    return [dataclasses.replace(figure, detector=detector_accuracy(figure.name)) for figure in figures]


def text_scores(clap: Clap, sounds: Sequence[Sound], prompts: Sequence[str]) -> Figure:
    """Cosine of each sound and its prompt in CLAP's space, averaged.

    Args:
        clap: a loaded CLAP.
        sounds: clips.
        prompts: of the same clips, in the same order; clips without one are left out.
    """
    pairs = [(sound, prompt) for sound, prompt in zip(sounds, prompts, strict=True) if prompt.strip()]
    texts = list(clap.read([prompt for _, prompt in pairs])) if pairs else []
    cosines = [float(clap.hear(sound) @ text) for (sound, _), text in zip(pairs, texts, strict=True)]
    definition = f"Mean cosine of sound and prompt in {clap.name} (Wu et al. 2023); compare within it only."
    return mean_figure(f"Text score ({clap.name})", cosines, "", definition)


def _tempo_share(
    name: str, pairs: list[tuple[Requested, Detected]], tolerance: float, levels: tuple[float, ...], definition: str
) -> Figure:
    hits = [
        found.bpm is not None and any(abs(found.bpm * level / requested.bpm - 1.0) <= tolerance for level in levels)
        for requested, found in pairs
        if requested.bpm is not None
    ]
    return share_figure(name, hits, definition.format("tempo"))


def _mirex(requested: Requested, found: Detected) -> float:
    return mirex_key_score(found.keyscale, requested.keyscale) if found.keyscale and requested.keyscale else 0.0


def _key_scores(pairs: list[tuple[Requested, Detected]], least: float) -> list[bool]:
    return [_mirex(requested, found) >= least for requested, found in pairs if requested.keyscale]


def _instrument_figures(pairs: list[tuple[Requested, Detected]]) -> list[Figure]:
    detected = [(requested, found) for requested, found in pairs if requested.instruments and found.genre]
    each = [bool(found.instruments & set(names)) for requested, found in detected for names in requested.instruments]
    every = [all(found.instruments & set(names) for names in requested.instruments) for requested, found in detected]
    known = "only instruments that it knows are counted."
    return [
        share_figure("Instruments (riff's tagger)", each, f"An instrument that the prompt names is detected; {known}"),
        share_figure("All instruments (riff's tagger)", every, f"Every one that the prompt names is detected; {known}"),
    ]


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _key(text: str | None) -> str | None:
    try:
        return canonical_key(text) if text else None
    except RiffError:
        return None


# The genres and instruments of riff's tagger that a prompt asks for, by the words it uses.

# The words of a prompt that mean one of the tagger's genres, beside the genre's own name.
GENRE_WORDS = {
    "ambient": ("ambient", "drone", "soundscape"),
    "baroque": ("baroque",),
    "bluegrass": ("bluegrass",),
    "blues": ("blues",),
    "boom_bap": ("boom bap", "boom-bap", "old school hip hop", "90s hip hop"),
    "bossa_nova": ("bossa nova", "bossa"),
    "celtic": ("celtic", "irish"),
    "chinese": ("chinese",),
    "chiptune": ("chiptune", "8-bit", "8 bit", "chip music"),
    "classical_piano": ("classical piano",),
    "disco": ("disco",),
    "drum_and_bass": ("drum and bass", "drum & bass", "drum'n'bass", "dnb", "d&b"),
    "flamenco": ("flamenco",),
    "folk": ("folk",),
    "funk": ("funk", "funky"),
    "house": ("house",),
    "lofi_hip_hop": ("lo-fi hip hop", "lofi hip hop", "lo-fi", "lofi", "chillhop"),
    "lullaby": ("lullaby",),
    "metal": ("metal",),
    "orchestral": ("orchestral", "orchestra", "symphonic"),
    "ragtime": ("ragtime",),
    "reggae": ("reggae",),
    "rock": ("rock",),
    "sacred": ("sacred", "hymn", "chorale"),
    "salsa": ("salsa",),
    "swing_jazz": ("swing jazz", "swing", "big band", "jazz"),
    "synthwave": ("synthwave", "retrowave", "outrun"),
    "techno": ("techno",),
    "trance": ("trance",),
    "trap": ("trap",),
}
# The tagger's instruments, each with its other names; a word that could mean several of them means any.
INSTRUMENT_WORDS: dict[str, tuple[str, ...]] = {
    "accordion": (),
    "acoustic guitar": ("guitar",),
    "alto saxophone": ("saxophone", "sax"),
    "bagpipe": ("bagpipes",),
    "banjo": (),
    "bassoon": (),
    "brass section": ("brass", "horns"),
    "celesta": (),
    "cello": (),
    "choir": ("voices", "chorus"),
    "church organ": ("organ", "pipe organ"),
    "clarinet": (),
    "clavinet": ("clavi", "clav"),
    "distorted guitar": ("distortion guitar", "guitar"),
    "drums": ("drum", "percussion", "beat", "drum kit"),
    "dulcimer": (),
    "electric bass": ("bass", "bass guitar"),
    "electric guitar": ("guitar",),
    "electric piano": ("rhodes", "wurlitzer"),
    "fiddle": ("violin",),
    "flute": (),
    "french horn": ("horn",),
    "glockenspiel": (),
    "hammond organ": ("organ",),
    "harmonica": (),
    "harp": (),
    "harpsichord": (),
    "jazz guitar": ("guitar",),
    "kalimba": ("thumb piano",),
    "koto": (),
    "marimba": (),
    "music box": (),
    "muted guitar": ("guitar",),
    "muted trumpet": ("trumpet",),
    "nylon guitar": ("guitar", "classical guitar", "spanish guitar"),
    "oboe": (),
    "ocarina": (),
    "overdriven guitar": ("guitar",),
    "pan flute": ("panpipes", "flute"),
    "piano": (),
    "piccolo": (),
    "pizzicato strings": ("strings",),
    "recorder": (),
    "saw lead": ("synth lead", "synth"),
    "shakuhachi": (),
    "shamisen": (),
    "slap bass": ("bass",),
    "soprano saxophone": ("saxophone", "sax"),
    "square lead": ("synth lead", "synth"),
    "steel drums": ("steel pan", "steelpan"),
    "strings": ("string section", "string quartet", "string orchestra"),
    "synth bass": ("bass",),
    "synth brass": ("brass",),
    "synth pad": ("pad",),
    "synth strings": ("strings",),
    "tenor saxophone": ("saxophone", "sax"),
    "timpani": ("kettledrum",),
    "trombone": (),
    "trumpet": (),
    "tubular bells": ("bells", "church bells"),
    "upright bass": ("bass", "double bass", "contrabass"),
    "vibraphone": ("vibes",),
    "viola": (),
    "violin": ("fiddle",),
    "warm pad": ("pad",),
    "whistle": ("tin whistle",),
    "xylophone": (),
}
_WITHOUT = re.compile(r"\b(?:no|not|without(?:\s+any)?)\s+$", re.IGNORECASE)


def genres_in(prompt: str) -> tuple[str, ...]:
    """The tagger's genres that a prompt means, any of them; empty where it names none that the tagger knows."""
    return tuple(dict.fromkeys(name for names in _found(prompt, _patterns("genres")) for name in names))


def instruments_in(prompt: str) -> tuple[tuple[str, ...], ...]:
    """For each word of a prompt that means an instrument, those of the tagger that it may mean.

    "no drums" asks for none, and "drum and bass" is a genre.
    """
    named = re.compile("|".join(rf"{re.escape(word)}" for word in ("drum and bass", "drum & bass")), re.IGNORECASE)
    return tuple(dict.fromkeys(_found(named.sub("", prompt), _patterns("instruments"))))


def _found(prompt: str, patterns: dict[str, tuple[re.Pattern[str], ...]]) -> list[tuple[str, ...]]:
    """The meanings of each word that is not part of a longer one that means something: "guitar" in "jazz guitar"."""
    spans: dict[tuple[int, int], list[str]] = {}
    for name, forms in patterns.items():
        for form in forms:
            for match in form.finditer(prompt):
                if not _WITHOUT.search(prompt[max(0, match.start() - 16) : match.start()]):
                    spans.setdefault(match.span(), []).append(name)
    return [
        tuple(dict.fromkeys(names))
        for (start, end), names in sorted(spans.items())
        if not any(low <= start and end <= high and high - low > end - start for low, high in spans)
    ]


@functools.cache
def _patterns(kind: str) -> dict[str, tuple[re.Pattern[str], ...]]:
    words = GENRE_WORDS if kind == "genres" else INSTRUMENT_WORDS
    return {name: tuple(_word(word) for word in (name.replace("_", " "), *others)) for name, others in words.items()}


def _word(word: str) -> re.Pattern[str]:
    plural = "" if word.endswith("s") else "s?"
    return re.compile(rf"(?<![\w-]){re.escape(word)}{plural}(?![\w-])", re.IGNORECASE)
