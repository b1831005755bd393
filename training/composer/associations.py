"""Places, eras, scenes and famous styles that people name when they mean a genre.

Every phrase points at exactly one genre, in plain ASCII without apostrophes, and claims nothing about tempo,
key, metre or drums, so that it stays true of any clip of its genre.
"""

ASSOCIATIONS: dict[str, tuple[str, ...]] = {
    "swing_jazz": (
        "smoky jazz club in new orleans", "1930s harlem ballroom", "duke ellington style",
        "after hours in a manhattan jazz bar", "cotton club orchestra", "late night at a basement jazz club",
        "count basie big band", "black and white film noir detective", "cocktail party in 1950s manhattan",
        "miles davis style", "jazz quartet in a hotel lounge", "speakeasy during prohibition",
        "rooftop bar with a jazz trio", "glenn miller dance hall", "sipping whiskey at the blue note",
    ),
    "bossa_nova": (
        "walking along copacabana beach", "rio de janeiro at sunset", "ipanema girl",
        "antonio carlos jobim style", "caipirinha by the sea", "brazilian beach cafe", "elevator music",
        "1960s brazilian lounge", "joao gilberto style", "coffee shop in rio",
        "breeze on a brazilian terrace",
    ),
    "ragtime": (
        "scott joplin style ragtime piano", "1920s saloon", "old silent movie piano",
        "wild west saloon piano", "player piano in a honky tonk", "the entertainer",
        "charlie chaplin silent comedy", "maple leaf rag", "turn of the century vaudeville theater",
        "st louis in 1899", "mississippi riverboat piano player",
    ),
    "rock": (
        "classic rock radio", "stadium concert with electric guitars", "garage band rehearsal",
        "road trip down route 66", "woodstock festival", "led zeppelin style", "teenage band in a garage",
        "seattle in 1991", "highway in a convertible", "british invasion band", "the rolling stones style",
        "arena show with pyrotechnics", "dive bar band on a friday", "motorcycle on an open road",
    ),
    "metal": (
        "headbanging in a mosh pit", "black sabbath style", "viking battle in the snow", "gates of hell",
        "iron maiden style", "thrash riffs of the 1980s", "bloodthirsty demon army", "wacken open air",
        "mosh pit at a festival in norway", "slaying a dragon with distorted guitars", "metallica style",
        "burning skulls and leather",
    ),
    "house": (
        "chicago warehouse in 1986", "deep club in a london basement", "beach club day party",
        "poolside dj set in miami", "dancefloor in paris at midnight", "fashion show runway",
        "rooftop party in barcelona", "soulful dance floor piano stabs", "frankie knuckles style",
        "mykonos sunset party", "pride parade afterparty", "gym workout mix", "sunny terrace dj",
    ),
    "techno": (
        "berlin warehouse rave", "detroit underground machine", "factory at midnight",
        "industrial basement with strobe lights", "berghain on a sunday", "concrete bunker rave",
        "robots on an assembly line", "dark tunnel with lasers", "underground club in berlin",
        "acid machine in a dark room", "kraftwerk robots", "abandoned factory party",
        "modular rig in a bunker",
    ),
    "trance": (
        "ibiza at 3am", "sunrise over ibiza", "hands in the air festival anthem",
        "goa beach under the full moon", "laser show with a supersaw", "tiesto style",
        "flying through clouds at dawn", "euphoric festival main stage",
        "amsterdam arena with ten thousand people", "psychedelic forest gathering",
        "emotional breakdown before the drop", "superclub in ibiza",
    ),
    "drum_and_bass": (
        "jungle rave in bristol", "london pirate radio in 1994", "high speed car chase", "liquid rollers",
        "amen break with deep sub bass", "racing through motorway tunnels", "chopped breaks and sub bass",
        "goldie style", "running through a futuristic city", "brixton jungle night", "snowboard stunts",
    ),
    "synthwave": (
        "neon city at night", "driving a delorean in 1985", "miami vice", "outrun the sunset", "blade runner",
        "retro future grid with a purple sun", "80s action movie", "vhs tape from 1984", "stranger things",
        "cyberpunk skyline in the rain", "neon lights on wet streets", "80s mall", "night drive in a ferrari",
        "tron motorbike",
    ),
    "chiptune": (
        "8-bit boss fight", "nintendo game", "super mario level", "game boy adventure", "arcade in 1986",
        "pixel art platformer", "commodore 64 demo scene", "retro video game", "pac man arcade cabinet",
        "8-bit dungeon", "16-bit racing game", "game over screen", "tetris blocks falling",
        "pixel hero collecting coins",
    ),
    "lofi_hip_hop": (
        "rainy night study beats", "lo-fi beat for the holidays", "beats to relax and study to",
        "anime girl doing homework", "coffee shop on a rainy day", "cozy bedroom with a cat",
        "tokyo apartment at 2am", "dusty vinyl and rain", "late night homework session",
        "warm blanket and hot chocolate", "window seat on a rainy train", "sleepy cat on a keyboard",
        "chillhop cafe", "autumn leaves and a warm cup of tea", "snow falling outside the dorm",
    ),
    "boom_bap": (
        "brooklyn street corner in 1993", "new york in the nineties", "j dilla style",
        "rap cypher on the block", "breakdance battle", "queensbridge stoop", "turntable scratching dj",
        "golden age of rap", "graffiti on a subway train", "mpc beat from the bronx", "freestyle battle",
        "boombox on a shoulder", "wu tang style",
    ),
    "trap": (
        "atlanta strip at midnight", "rolling hi hats and 808s", "gangster in a lamborghini",
        "travis scott type beat", "drill in south london", "808 bass shaking the car",
        "diamond chains and luxury cars", "atlanta studio session", "drake type beat",
        "dark piano with booming 808", "streets of houston", "designer sneakers flex",
    ),
    "classical_piano": (
        "chopin nocturne", "viennese salon", "beethoven moonlight sonata", "grand piano in an empty hall",
        "debussy clair de lune", "erik satie gymnopedie", "piano recital at a conservatory", "mozart sonata",
        "candlelight piano concert", "liszt etude", "aristocrat at the grand piano", "schubert impromptu",
        "pianist at a steinway",
    ),
    "orchestral": (
        "epic movie trailer", "symphony hall", "john williams film score", "knights riding into battle",
        "lord of the rings", "space opera title", "hollywood film score", "beethoven symphony",
        "hero returns to the kingdom", "vienna philharmonic", "pirates on the high seas",
        "fantasy castle on a mountain", "tchaikovsky ballet", "spaceship launch",
    ),
    "baroque": (
        "johann sebastian bach", "bach fugue", "vivaldi four seasons", "palace of versailles",
        "court of louis the fourteenth", "handel suite", "brandenburg concerto",
        "powdered wigs at a royal ball", "venice in 1720", "goldberg variations", "scarlatti sonata",
        "candlelit palace chamber", "royal garden fountain",
    ),
    "folk": (
        "campfire singalong", "bob dylan style", "cabin in the woods", "acoustic evening by the fire",
        "wandering hobo with a guitar", "greenwich village coffeehouse", "simon and garfunkel style",
        "wildflowers in a meadow", "joan baez protest march", "walking through a forest with a guitar",
        "canoe on the river", "front porch storyteller", "old wooden cabin",
    ),
    "bluegrass": (
        "appalachian hoedown", "kentucky front porch", "earl scruggs banjo", "barn dance on a saturday",
        "foggy mountain breakdown", "tennessee moonshine", "hillbilly string band", "bill monroe style",
        "nashville fiddle contest", "hay wagon ride", "dueling banjos", "blue ridge mountains",
    ),
    "celtic": (
        "irish pub", "st patricks day", "scottish highlands", "green hills of ireland", "riverdance",
        "dublin tavern", "hobbits in the shire", "galway harbour", "druids at stonehenge",
        "misty moor with bagpipes", "leprechaun gold", "medieval fair on the green", "edinburgh castle",
    ),
    "flamenco": (
        "andalusian courtyard", "seville at night", "gypsy guitar in spain", "bullfight in madrid",
        "paco de lucia style", "spanish dancer with castanets", "matador entering the ring",
        "alhambra in granada", "tapas bar in seville", "red dress and clapping hands",
        "gypsy caves of sacromonte",
    ),
    "chinese": (
        "ancient chinese hymn", "great wall of china", "ming dynasty court", "bamboo forest in the mist",
        "chinese new year", "temple garden in beijing", "tea ceremony in shanghai", "silk road caravan",
        "dragon dance", "kung fu monastery", "lotus pond at dawn", "forbidden city", "jade emperor",
        "lantern festival",
    ),
    "blues": (
        "mississippi delta", "b b king style", "robert johnson at the crossroads", "my baby left me",
        "juke joint on a saturday night", "chicago south side bar", "muddy waters style",
        "harmonica player on a train track", "whiskey and heartbreak", "memphis beale street",
        "freight train and cotton fields", "hard times in the deep south",
    ),
    "funk": (
        "james brown style", "parliament funkadelic", "slap bass party", "1970s cop show",
        "soul train dance line", "getting down on the one", "bootsy collins bass",
        "block party with bell bottoms", "afro and platform shoes", "prince in minneapolis",
        "blaxploitation film chase", "earth wind and fire style",
    ),
    "disco": (
        "studio 54", "saturday night fever", "mirror ball dance floor", "donna summer style",
        "roller skating rink in 1978", "bee gees style", "abba style", "glitter and gold jumpsuits",
        "new york nightclub in 1977", "disco ball and flared pants", "chic guitar and strings",
        "boogie wonderland",
    ),
    "salsa": (
        "havana street party", "cuban dance club", "tito puente style", "celia cruz style",
        "buena vista social club", "puerto rico carnival", "dancing in old havana", "spanish harlem in 1970",
        "fania all stars", "cuban cigars and rum", "mojito at a cuban bar", "cali dance festival",
    ),
    "reggae": (
        "jamaican beach", "bob marley style", "kingston sound system", "rasta in the sun", "island hammock",
        "one love", "dub plate from kingston", "palm trees in jamaica", "smoking on the beach in negril",
        "montego bay", "peter tosh style", "caribbean bonfire",
    ),
    "ambient": (
        "floating in outer space", "deep ocean drift", "brian eno style", "meditation at dawn",
        "northern lights over iceland", "music for airports", "spa and yoga session", "drifting icebergs",
        "lost in the cosmos", "falling asleep among stars", "underwater cave", "fog over a silent lake",
        "breathing exercise", "nebula seen through a telescope",
    ),
    "sacred": (
        "church bells", "sunday morning gospel hymn", "gregorian monks", "cathedral at easter",
        "angels in heaven", "notre dame cathedral", "christmas mass at midnight", "wedding in a chapel",
        "vatican choir", "funeral in a stone church", "monastery at vespers", "pilgrims in a cathedral",
        "prayer in an old abbey", "church bells on sunday",
    ),
    "lullaby": (
        "bedtime music box", "baby sleeping in a cradle", "brahms lullaby", "twinkle twinkle little star",
        "mother rocking her baby", "ballerina in a jewelry box", "nursery at night",
        "sweet dreams little one", "goodnight moon", "teddy bear in a crib", "tucking the kids into bed",
        "crib mobile turning", "fairy tale before sleep",
    ),
}
