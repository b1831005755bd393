"""How people name the thirty genres: names, paraphrases that avoid the names, keywords, and families."""

NAMES: dict[str, tuple[str, ...]] = {
    "swing_jazz": ("swing jazz", "jazz", "swing", "jazz combo"),
    "bossa_nova": ("bossa nova", "bossa", "bossa nova jazz"),
    "ragtime": ("ragtime", "ragtime piano", "rag", "piano rag"),
    "rock": ("rock", "rock music", "classic rock", "rock and roll"),
    "metal": ("metal", "heavy metal", "thrash metal", "metal riff"),
    "house": ("house", "house music", "deep house", "club house"),
    "techno": ("techno", "techno music", "industrial techno", "berlin techno"),
    "trance": ("trance", "trance music", "uplifting trance", "psytrance"),
    "drum_and_bass": ("drum and bass", "drum n bass", "dnb", "drum & bass", "jungle"),
    "synthwave": ("synthwave", "retrowave", "outrun", "darksynth"),
    "chiptune": ("chiptune", "8-bit", "chip music", "8-bit chiptune"),
    "lofi_hip_hop": ("lo-fi hip hop", "lofi hip hop", "lo-fi", "lofi", "lofi beats", "chillhop"),
    "boom_bap": ("boom bap", "boom bap hip hop", "hip hop", "old school hip hop", "90s hip hop"),
    "trap": ("trap", "trap beat", "trap music", "drill"),
    "classical_piano": ("classical piano", "classical piano music", "romantic piano", "piano sonata"),
    "orchestral": ("orchestral", "orchestral music", "orchestra", "symphonic music"),
    "baroque": ("baroque", "baroque music", "baroque concerto", "baroque chamber music"),
    "folk": ("folk", "folk music", "acoustic folk", "folk song"),
    "bluegrass": ("bluegrass", "bluegrass music", "country bluegrass", "country"),
    "celtic": ("celtic", "celtic music", "irish folk", "celtic folk"),
    "flamenco": ("flamenco", "flamenco guitar", "flamenco music", "rumba flamenca"),
    "chinese": ("chinese music", "traditional chinese music", "chinese", "chinese folk"),
    "blues": ("blues", "blues music", "electric blues", "delta blues"),
    "funk": ("funk", "funk music", "funk groove", "soul funk"),
    "disco": ("disco", "disco music", "70s disco", "nu disco"),
    "salsa": ("salsa", "salsa music", "cuban salsa", "mambo"),
    "reggae": ("reggae", "reggae music", "roots reggae", "dub reggae"),
    "ambient": ("ambient", "ambient music", "ambient soundscape", "drone ambient"),
    "sacred": ("sacred music", "church music", "choral music", "sacred hymn"),
    "lullaby": ("lullaby", "cradle song", "lullaby music", "baby lullaby"),
}

PARAPHRASES: dict[str, tuple[str, ...]] = {
    "swing_jazz": (
        "big band with a walking bass", "bebop combo", "dixieland brass and walking bass",
        "improvised horn solos over walking bass", "finger snapping lounge trio",
        "ride cymbal and walking bass", "cool bebop quartet", "big band music", "hot dixieland band",
    ),
    "bossa_nova": (
        "brazilian lounge music", "soft brazilian guitar with samba rhythm", "latin lounge guitar",
        "gentle samba", "brazilian cafe music", "samba for a cocktail lounge",
        "soft syncopated nylon guitar from brazil", "easy listening from brazil",
    ),
    "ragtime": (
        "old time saloon piano", "stride piano", "syncopated oom pah piano", "silent movie piano",
        "honky tonk piano tune", "jaunty vaudeville piano", "early american syncopated piano",
        "player piano roll",
    ),
    "rock": (
        "overdriven guitar riffs with a backbeat", "power chords and loud drums", "garage band anthem",
        "indie guitar band", "grunge guitar song", "punk guitars", "alternative guitar anthem",
        "stadium guitar anthem", "guitar bass and drums band",
    ),
    "metal": (
        "distorted chugging guitars with double kick", "brutal palm muted riffs", "thrash guitars",
        "headbanging distorted riffs", "double bass drumming and shredding", "doom guitars",
        "extremely distorted guitar onslaught", "shredding guitar assault",
    ),
    "house": (
        "four on the floor club groove with piano chords", "soulful club dance track",
        "edm dance floor groove", "offbeat hi hats and organ bass", "club music for dancing",
        "deep club groove", "dj club mix with chord stabs", "tropical dance club track",
        "electronic dance groove with warm chords",
    ),
    "techno": (
        "pounding four to the floor machine music", "hypnotic industrial rave", "relentless warehouse kick",
        "dark rave machine loop", "mechanical kick drum music", "acid bassline machine",
        "pounding electronic kick and acid line", "repetitive machine rave",
    ),
    "trance": (
        "uplifting arpeggiated rave anthem", "euphoric supersaw anthem", "soaring supersaw arpeggios",
        "epic festival synth anthem", "rolling offbeat bass with euphoric synths", "hands up supersaw melody",
        "big room festival anthem", "goa arpeggios",
    ),
    "drum_and_bass": (
        "breakbeat with deep sub bass", "chopped amen breaks", "liquid breakbeat rollers",
        "frantic breakbeats and reese bass", "high speed breakbeat", "uk breakbeat rave", "breakcore",
        "rolling breaks with sub bass",
    ),
    "synthwave": (
        "80s retro synth music", "neon eighties synthesizers", "retro eighties electronic soundtrack",
        "pulsing analog synths from the 80s", "80s synth pop", "vintage analog synth with gated snare",
        "nostalgic eighties night drive", "retro futuristic synth soundtrack",
    ),
    "chiptune": (
        "retro video game music", "square wave arcade melody", "pixel game soundtrack",
        "bleepy console game tune", "old video game theme", "nintendo style bleeps", "game boy bleeps",
        "pulse wave arcade tune", "video game level music",
    ),
    "lofi_hip_hop": (
        "chill study beats", "dusty mellow beats", "relaxing study music",
        "jazzy chill beats with vinyl crackle", "sleepy tape hiss beats", "bedroom producer chill beat",
        "chilled downtempo beats", "homework beats", "cozy chill beat tape",
    ),
    "boom_bap": (
        "old school rap beat", "90s rap instrumental", "dusty sampled drums with a head nod groove",
        "golden era rap beat", "gritty east coast rap beat", "breakbeat for a rapper",
        "head nodding rap groove", "underground rap instrumental", "classic mpc rap beat",
    ),
    "trap": (
        "808 bass with rolling hi hats", "booming 808 beat", "modern southern rap beat",
        "hard 808s and snappy hats", "dark 808 rap instrumental", "type beat with triplet hi hats",
        "gangsta rap beat with 808s", "modern rap instrumental",
    ),
    "classical_piano": (
        "solo concert piano", "romantic era piano solo", "grand piano nocturne",
        "expressive piano recital piece", "piano etude", "concert hall piano solo",
        "elegant salon piano piece", "impressionist piano prelude", "solo piano ballad in the romantic style",
    ),
    "orchestral": (
        "cinematic film score", "epic strings and brass", "full symphony",
        "movie soundtrack with strings and horns", "sweeping cinematic strings", "epic trailer score",
        "heroic brass fanfare with strings", "fantasy film soundtrack", "symphony with timpani",
    ),
    "baroque": (
        "harpsichord and strings", "counterpoint for harpsichord", "fugue", "seventeenth century court music",
        "ornate harpsichord suite", "early music ensemble", "contrapuntal chamber strings",
        "royal court dance", "concerto grosso",
    ),
    "folk": (
        "fingerpicked acoustic guitar song", "singer songwriter guitar", "strummed acoustic guitar ballad",
        "campfire guitar song", "rustic acoustic song", "unplugged guitar and harmonica",
        "troubadour guitar ballad", "americana guitar",
    ),
    "bluegrass": (
        "banjo and fiddle hoedown", "banjo picking", "appalachian string band", "hillbilly banjo breakdown",
        "western hoedown", "mountain music with banjo", "old time string band",
        "barn dance with fiddle and banjo", "cowboy banjo tune",
    ),
    "celtic": (
        "irish jig", "irish reel", "scottish bagpipe tune", "tin whistle and fiddle dance", "gaelic air",
        "irish pub session", "highland pipes and drums", "traditional irish fiddle tune",
        "gaelic fiddle dance",
    ),
    "flamenco": (
        "passionate spanish guitar", "spanish gypsy guitar", "andalusian guitar",
        "spanish guitar with handclaps", "fiery spanish dance", "phrygian spanish guitar",
        "castanets and spanish guitar", "bulerias",
    ),
    "chinese": (
        "pentatonic asian melody", "far east pentatonic zither", "guzheng and dizi", "oriental court music",
        "traditional asian flute and zither", "erhu melody from the far east", "pipa and bamboo flute",
        "asian temple music", "pentatonic melody from the orient",
    ),
    "blues": (
        "twelve bar shuffle", "soulful bent guitar notes", "wailing harmonica and guitar",
        "twelve bar guitar jam", "slide guitar and harmonica", "juke joint shuffle",
        "sorrowful southern guitar", "rhythm and soul guitar shuffle",
    ),
    "funk": (
        "slap bass groove with wah guitar", "syncopated slap bass and horns", "tight sixteenth note groove",
        "greasy clavinet groove", "soul groove with horn stabs", "r&b slap bass jam",
        "syncopated groove on the one", "soul horns and slap bass", "motown soul groove",
    ),
    "disco": (
        "seventies dance floor strings", "four on the floor with octave bass", "70s dance music",
        "glittery dance floor strings", "seventies nightclub dance groove",
        "octave bassline and string stabs", "mirror ball dance music", "saturday night dance groove",
    ),
    "salsa": (
        "cuban montuno piano", "afro cuban dance with horns", "latin dance band",
        "clave and congas with brass", "latin big band with congas", "montuno piano and cowbell",
        "tropical latin dance", "merengue party band", "cuban son",
    ),
    "reggae": (
        "offbeat skank guitar", "jamaican groove with deep bass", "one drop groove",
        "island groove with offbeat guitar", "ska and dub", "roots music from jamaica",
        "dub bass and offbeat organ", "caribbean island groove", "dancehall riddim",
    ),
    "ambient": (
        "floating synth pads", "atmospheric drone", "ethereal soundscape", "meditation music",
        "relaxing spa music", "evolving pad texture", "new age relaxation", "beatless atmospheric texture",
        "background music for yoga", "space drone", "sleep music",
    ),
    "sacred": (
        "choir and church organ", "cathedral choir", "gregorian chant", "solemn organ hymn",
        "bells and choir", "gospel hymn", "pipe organ chorale", "liturgical choir", "religious choir",
        "monks chanting", "tolling bells", "christmas carol choir",
    ),
    "lullaby": (
        "bedtime song", "soft music box melody", "nursery rhyme", "gentle song for a sleeping baby",
        "childrens bedtime melody", "kids bedtime tune", "goodnight song", "tiny music box tune",
        "childrens music",
    ),
}

KEYWORDS: dict[str, tuple[str, ...]] = {
    "swing_jazz": (
        "bebop", "speakeasy", "harlem", "jazzy", "big band", "smoky", "dixieland", "classy", "sophisticated",
        "suave",
    ),
    "bossa_nova": ("brazilian", "rio", "brazil", "samba", "lounge", "copacabana"),
    "ragtime": ("saloon", "joplin", "stride", "vaudeville", "1900s", "honky tonk"),
    "rock": ("stadium", "garage", "indie", "punk", "grunge", "guitars", "riffs"),
    "metal": ("headbanging", "mosh", "thrash", "doom", "brutal", "shredding", "demon", "crushing", "satanic"),
    "house": ("club", "dancefloor", "chicago", "edm", "dance", "clubbing", "dj"),
    "techno": (
        "warehouse", "detroit", "berlin", "industrial", "acid", "machine", "underground", "rave", "robotic",
        "mechanical", "repetitive", "pounding",
    ),
    "trance": ("ibiza", "supersaw", "goa", "euphoric", "festival", "laser"),
    "drum_and_bass": ("breakbeat", "amen", "liquid", "rollers", "breaks", "jungle"),
    "synthwave": (
        "neon", "80s", "retro", "eighties", "delorean", "cyberpunk", "vhs", "1980s", "futuristic", "vintage",
    ),
    "chiptune": ("video game", "arcade", "nintendo", "pixel", "gameboy", "console", "game"),
    "lofi_hip_hop": (
        "study", "rainy", "vinyl", "cozy", "homework", "coffee", "study beats", "chillhop", "studying",
        "sleepy",
    ),
    "boom_bap": (
        "rap", "90s", "brooklyn", "bronx", "turntable", "cypher", "nineties", "sampled", "rapper",
        "old school",
    ),
    "trap": ("808", "808s", "atlanta", "hi hats", "type beat", "gangsta"),
    "classical_piano": (
        "nocturne", "chopin", "recital", "debussy", "sonata", "satie", "liszt", "salon", "beethoven",
    ),
    "orchestral": (
        "cinematic", "symphony", "soundtrack", "film", "movie", "fanfare", "hollywood", "score", "trailer",
        "epic trailer", "film score",
    ),
    "baroque": (
        "bach", "vivaldi", "fugue", "handel", "versailles", "counterpoint", "royal", "court", "graceful",
        "stately", "refined", "ornate",
    ),
    "folk": ("campfire", "acoustic", "unplugged", "rustic", "cabin", "troubadour", "americana"),
    "bluegrass": ("hoedown", "appalachian", "hillbilly", "nashville", "kentucky", "western", "cowboy"),
    "celtic": ("irish", "ireland", "scottish", "jig", "reel", "gaelic", "highland", "pub"),
    "flamenco": ("spanish", "spain", "seville", "gypsy", "andalusian", "castanets"),
    "chinese": (
        "erhu", "guzheng", "pipa", "pentatonic", "asian", "china", "oriental", "beijing", "bamboo", "dynasty",
    ),
    "blues": (
        "mississippi", "delta", "twelve bar", "crossroads", "memphis", "juke joint", "bluesy", "heartbreak",
        "shuffling",
    ),
    "funk": ("wah", "slap", "1970s", "soul", "on the one", "syncopated", "motown", "greasy", "sassy"),
    "disco": ("studio 54", "mirror ball", "70s", "seventies", "glitter", "nightclub", "shiny", "boogie"),
    "salsa": ("cuban", "cuba", "havana", "latin", "montuno", "congas", "clave", "carnival", "tropical"),
    "reggae": (
        "jamaica", "jamaican", "rasta", "kingston", "dub", "ska", "offbeat", "caribbean", "island", "roots",
    ),
    "ambient": (
        "drone", "atmospheric", "space", "meditation", "ethereal", "soundscape", "spa", "yoga", "floating",
    ),
    "sacred": (
        "cathedral", "hymn", "gospel", "gregorian", "chant", "religious", "church", "chapel", "holy",
        "christmas", "solemn", "spiritual", "heavenly", "divine",
    ),
    "lullaby": ("bedtime", "nursery", "cradle", "baby", "sleepy time", "children", "goodnight"),
}

FAMILIES: dict[str, tuple[str, ...]] = {
    "jazz": ("jazz music",),
    "rock": ("guitar music", "band music"),
    "electronic": ("electronic music", "electronic", "electronica", "synth music"),
    "hip-hop": ("hip hop music", "urban beats"),
    "classical": ("classical music", "classical"),
    "folk/world": ("world music", "traditional music"),
    "blues/soul": ("soul music", "rhythm and blues", "r&b"),
    "latin/caribbean": ("latin music", "tropical music"),
    "ambient/sacred": ("peaceful music", "spiritual music"),
}
