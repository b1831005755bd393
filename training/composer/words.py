"""The words people type for instruments, moods, density, sections, tempo and metre."""

INSTRUMENTS: dict[str, tuple[str, ...]] = {
    "piano": ("grand piano", "acoustic piano", "keys", "ivories", "pianist"),
    "electric piano": ("rhodes", "e-piano", "rhodes piano", "wurlitzer", "fender rhodes"),
    "harpsichord": ("cembalo", "spinet", "plucked keyboard"),
    "clavinet": ("clavi", "clav"),
    "celesta": ("celeste", "celesta bells"),
    "glockenspiel": ("glock", "tiny bells"),
    "music box": ("musical box", "wind-up music box", "tinkling music box"),
    "vibraphone": ("vibraphone mallets", "vibraphonist", "vibraharp"),
    "marimba": ("wooden mallets", "marimba mallets"),
    "xylophone": ("xylo", "wooden bars"),
    "tubular bells": ("bells", "bell", "chimes", "big bells"),
    "dulcimer": ("hammered dulcimer", "hammered strings"),
    "hammond organ": ("hammond", "electric organ", "drawbar organ", "b3 organ"),
    "church organ": ("pipe organ", "cathedral organ", "organist"),
    "accordion": ("squeezebox", "concertina"),
    "harmonica": ("mouth organ", "harmonica player"),
    "nylon guitar": ("classical guitar", "nylon string guitar", "fingerstyle guitar"),
    "acoustic guitar": (
        "steel string guitar", "fingerpicked guitar", "strummed guitar", "acoustic strumming",
    ),
    "jazz guitar": ("hollow body guitar", "archtop guitar"),
    "electric guitar": ("clean guitar", "clean electric guitar", "stratocaster", "telecaster"),
    "muted guitar": ("palm muted guitar", "muted picking"),
    "overdriven guitar": ("crunchy guitar", "overdrive guitar", "gritty guitar"),
    "distorted guitar": ("distortion guitar", "heavy guitar", "fuzz guitar", "distorted guitars"),
    "upright bass": ("double bass", "contrabass", "acoustic bass", "standup bass"),
    "electric bass": ("bass guitar", "fingered bass", "bassline"),
    "slap bass": ("slapped bass", "slapping bass", "popping bass"),
    "synth bass": ("analog bass", "sub bass", "electronic bass"),
    "violin": ("violinist", "bowed violin"),
    "viola": ("violist", "bowed viola"),
    "cello": ("violoncello", "cellist"),
    "pizzicato strings": ("pizzicato", "plucked strings"),
    "harp": ("concert harp", "harpist"),
    "strings": ("string section", "violins", "string ensemble", "bowed strings", "string orchestra"),
    "synth strings": ("string synth", "string machine", "solina"),
    "choir": ("voices", "vocals", "singers", "chorus", "vocal choir", "singing", "aahs"),
    "trumpet": ("open trumpet", "trumpeter", "bugle"),
    "muted trumpet": ("trumpet with a mute", "harmon mute trumpet"),
    "trombone": ("slide trombone", "trombonist"),
    "french horn": ("horn", "french horns"),
    "brass section": ("brass", "horn section", "horns", "brass ensemble"),
    "synth brass": ("synthesizer brass", "brassy synth"),
    "soprano saxophone": ("soprano sax", "saxophone", "sax"),
    "alto saxophone": ("alto sax", "saxophone", "sax", "saxophonist"),
    "tenor saxophone": ("tenor sax", "saxophone", "sax", "sax player"),
    "oboe": ("oboist", "oboe reed"),
    "clarinet": ("clarinetist", "licorice stick"),
    "bassoon": ("bassoonist", "bassoon reed"),
    "piccolo": ("piccolo flute", "tiny flute", "fife"),
    "flute": ("flutist", "concert flute", "silver flute"),
    "recorder": ("wooden recorder", "block flute"),
    "pan flute": ("panpipes", "panflute"),
    "shakuhachi": ("bamboo flute", "dizi", "asian flute"),
    "whistle": ("tin whistle", "penny whistle", "whistling"),
    "ocarina": ("clay flute", "clay ocarina"),
    "square lead": ("square wave", "pulse lead", "square synth"),
    "saw lead": ("sawtooth", "saw synth", "sawtooth lead", "saw wave"),
    "synth pad": ("synth pads", "pad", "synthesizer pad", "pads"),
    "warm pad": ("warm pads", "soft pad", "analog pad"),
    "banjo": ("five string banjo", "banjo picking", "banjoist"),
    "shamisen": ("three string lute", "pipa", "sanxian"),
    "koto": ("zither", "guzheng", "asian zither"),
    "kalimba": ("thumb piano", "mbira"),
    "bagpipe": ("bagpipes", "pipes", "uilleann pipes"),
    "fiddle": ("fiddler", "fiddle player", "folk fiddle"),
    "steel drums": ("steel pan", "steelpan", "steel drum"),
    "timpani": ("kettledrums", "kettle drums", "orchestral drums"),
    "drums": ("drum kit", "drum set", "percussion", "drum beat", "drummer", "drum groove"),
}

GENERIC_INSTRUMENTS: dict[str, tuple[str, ...]] = {
    "guitar": (
        "nylon guitar", "acoustic guitar", "jazz guitar", "electric guitar", "muted guitar",
        "overdriven guitar", "distorted guitar",
    ),
    "bass": ("upright bass", "electric bass", "slap bass", "synth bass"),
    "synth": ("square lead", "saw lead", "synth pad", "warm pad", "synth strings", "synth brass"),
    "synthesizer": ("square lead", "saw lead", "synth pad", "warm pad", "synth brass"),
    "synth lead": ("square lead", "saw lead"),
    "organ": ("hammond organ", "church organ"),
    "mallets": ("vibraphone", "marimba", "xylophone", "glockenspiel"),
    "woodwind": ("oboe", "clarinet", "bassoon", "flute", "piccolo", "recorder"),
    "keyboard": ("piano", "electric piano", "harpsichord", "clavinet", "celesta"),
    "reed": ("oboe", "bassoon", "clarinet", "accordion"),
}

MOODS: dict[str, tuple[str, ...]] = {
    "happy": (
        "joyful", "cheerful", "upbeat", "sunny", "feel-good", "merry", "jolly", "uplifting", "hopeful",
        "bright", "festive", "positive", "inspiring", "optimistic", "celebratory", "motivational", "summer",
        "sunshine",
    ),
    "sad": (
        "melancholic", "melancholy", "sorrowful", "tearful", "heartbroken", "mournful", "gloomy", "wistful",
        "bittersweet", "lonely", "emotional", "depressing", "pensive", "lonesome", "crying",
    ),
    "calm": (
        "relaxing", "soothing", "quiet", "peaceful", "serene", "gentle", "tranquil", "calming", "meditative",
        "delicate", "restful", "light", "zen", "still",
    ),
    "dreamy": (
        "dreamlike", "hazy", "magical", "nostalgic", "floaty", "enchanted", "airy", "ethereal", "spacey",
        "blissful", "wandering", "atmospheric", "whimsical",
    ),
    "energetic": (
        "lively", "high energy", "vibrant", "driving", "powerful", "groovy", "funky", "danceable", "exciting",
        "catchy", "dynamic", "rousing", "party", "pumping", "spirited", "hot", "hype", "workout",
    ),
    "aggressive": (
        "angry", "furious", "fierce", "intense", "heavy", "hard", "raging", "violent", "relentless", "brutal",
        "hard-hitting", "rebellious", "raw",
    ),
    "dark": (
        "sinister", "ominous", "brooding", "evil", "shadowy", "creepy", "tense", "moody", "menacing",
        "gritty", "suspenseful", "grim", "scary", "horror",
    ),
    "mysterious": (
        "mystical", "eerie", "haunting", "strange", "spooky", "exotic", "hypnotic", "secretive", "enigmatic",
        "curious", "trippy", "otherworldly", "halloween",
    ),
    "romantic": (
        "sensual", "intimate", "passionate", "loving", "tender", "sentimental", "sexy", "soulful", "elegant",
        "heartfelt", "lovesick", "expressive", "seductive", "love",
    ),
    "mellow": (
        "laid-back", "soft", "chill", "chilled", "relaxed", "smooth", "easygoing", "lazy", "warm", "mild",
        "laid back", "cool", "cozy", "chillout", "easy",
    ),
    "playful": (
        "quirky", "silly", "cute", "bouncy", "goofy", "cheeky", "fun", "funny", "mischievous", "humorous",
        "comical", "jaunty", "childlike",
    ),
    "epic": (
        "grand", "majestic", "mighty", "heroic", "triumphant", "glorious", "dramatic", "monumental",
        "massive", "victorious", "larger than life", "thrilling", "adventurous",
    ),
}

DENSITY: dict[str, tuple[str, ...]] = {
    "sparse": (
        "sparse", "minimal", "minimalist", "stripped down", "spacious", "simple", "bare", "uncluttered",
    ),
    "medium": ("balanced", "moderately busy"),
    "dense": ("busy", "dense", "full", "rich", "layered", "thick", "lush", "complex", "packed"),
}

SECTIONS: dict[str, tuple[str, ...]] = {
    "intro": ("intro", "opening", "introduction", "song intro", "beginning"),
    "full": ("full band", "full arrangement", "main section"),
    "break": ("break", "breakdown", "break section", "quiet break"),
    "fill": ("drum fill", "with a drum fill", "with fills"),
}

DRUMS_ONLY = ("drum break", "drums alone", "drum solo", "drum loop")
NO_DRUMS = (
    "no drums", "with no drums", "without drums", "drumless", "no percussion", "without percussion",
    "no drum kit",
)
WITH_DRUMS = ("with drums", "with a beat", "with percussion", "with a drum kit")

TEMPO: tuple[tuple[float, float, tuple[str, ...]], ...] = (
    (0, 68, ("very slow", "extremely slow", "largo", "really slow")),
    (0, 90, ("slow", "slow tempo", "unhurried", "leisurely", "adagio", "slow-paced", "slowly", "downtempo")),
    (84, 122, ("mid-tempo", "medium tempo", "moderate tempo", "midtempo", "andante", "moderate")),
    (126, 999, ("fast", "up-tempo", "uptempo", "quick", "brisk", "allegro", "fast-paced", "fast tempo")),
    (152, 999, ("very fast", "super fast", "rapid", "presto", "breakneck", "high speed", "really fast")),
)
# Said after a comma, never before a noun: a number may follow the noun, and "tempo 808" would be a tempo.
TEMPO_ENDS = frozenset({
    "slow tempo", "medium tempo", "moderate tempo", "fast tempo", "slowly", "largo", "adagio", "andante",
    "allegro", "presto", "high speed",
})
BPM_FORMS = (
    "{bpm} bpm", "{bpm} BPM", "at {bpm} bpm", "at {bpm} BPM", "{bpm}bpm", "tempo {bpm}",
    "{bpm} beats per minute",
)

WALTZ = ("waltz", "3/4", "in 3/4", "waltz time", "3/4 time", "3/4 waltz", "triple meter", "triple time")
COMMON_TIME = ("4/4", "in 4/4", "4/4 time", "common time")
SWING = ("swung", "swing feel", "shuffle", "swinging", "shuffled", "with a swing", "shuffle feel")
STRAIGHT = ("straight", "straight eighths", "straight feel")

FLATS = {"C#": "Db", "D#": "Eb", "F#": "Gb", "G#": "Ab", "A#": "Bb"}
KEY_FORMS = ("in {key}", "in {key}", "{key}", "{key}", "in the key of {key}", "key of {key}", "key: {key}")
MODE_WORDS = {
    "minor": ("minor key", "minor mode", "minor scale", "minor chords"),
    "major": ("major key", "major mode", "major scale", "major chords"),
}

NOUNS = (
    "music", "song", "track", "piece", "tune", "instrumental", "loop", "melody", "sound", "clip", "recording",
    "theme", "number", "composition", "vibe", "sample", "background music",
)
DRUM_NOUNS = ("beat", "groove", "jam", "rhythm")
MASS_NOUNS = frozenset({
    "music",
})
# Nouns that need an article when they end the phrase: "a rave anthem", but "techno".
COUNTABLE = frozenset({
    "anthem", "hymn", "lullaby", "rag", "reel", "jig", "dance", "ballad", "symphony", "sonata", "soundtrack",
    "score", "soundscape", "drone", "concerto", "nocturne", "etude", "suite", "fugue", "quartet", "band",
    "combo", "trio", "choir", "shuffle", "hoedown", "breakdown", "texture", "riddim", "riff", "prelude",
    "chorale", "orchestra", "ensemble",
}) - MASS_NOUNS
FILLER_ADJECTIVES = (
    "nice", "good", "great", "beautiful", "original", "new", "short", "lovely", "awesome", "real", "amazing",
    "pretty", "perfect", "best",
)
