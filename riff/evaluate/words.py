"""The genres and instruments of riff's tagger that a prompt asks for, by the words it uses."""

import functools
import re

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
