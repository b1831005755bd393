"""What an unknown word is taken as: a table from WordNet's words to those of riff-mini's vocabulary.

    python -m training.recipes.nearest_words --wordnet /usr/share/wordnet --out riff/models/nearest_words.json

WordNet is Debian's package ``wordnet-base``. From every word of the vocabulary that means something by itself, the
search
walks over WordNet's relations; the nearest word that it starts from is what a word is taken as. Words that WordNet uses
most come first until the file is full. Endings ("softly", "trumpets") and words of music that WordNet lacks come
before.
"""

from __future__ import annotations

import argparse
import heapq
import json
import re
from collections import defaultdict
from pathlib import Path

from riff.prompt.vocabulary import NEAREST_WORDS
from riff.utils.files import atomic_path
from training.composer import genre_words, words
from training.composer.associations import ASSOCIATIONS
from training.composer.captions import vocabulary
from training.composer.tables import table

LARGEST_FILE = 290_000
# What a step along a relation costs; other relations are not walked. See wninput(5WN) for the signs.
_STEPS = {
    "&": 1.0,
    "\\": 1.2,
    "+": 1.2,
    "@": 1.5,
    "~": 2.0,
    "=": 2.0,
    "#m": 2.5,
    "#p": 2.5,
    "%p": 2.5,
    ";c": 3.0,
    "^": 2.0,
}
_MUSICAL = ("music", "musical_instrument", "musician", "dance", "musical_composition", "song", "singing")
_FARTHEST = 3.2
_SENSE = 0.8  # each sense before the one that is meant
_ENDINGS = ("s", "es", "ly", "ness", "ish", "ed", "ing", "er", "est", "y", "like", "ful", "ist", "ists")
# Words that stand in phrases but say nothing alone, or something else.
_EMPTY = frozenset(
    [
        "the",
        "and",
        "for",
        "with",
        "from",
        "old",
        "new",
        "one",
        "two",
        "day",
        "night",
        "time",
        "like",
        "style",
        "big",
        "music",
        "song",
        "great",
        "first",
        "last",
        "light",
        "live",
        "good",
        "best",
        "real",
        "work",
        "set",
        "hit",
        "full",
        "play",
        "high",
        "low",
        "black",
        "white",
        "blue",
        "red",
        "second",
        "number",
        "part",
        "band",
        "cool",
        "hot",
        "raw",
    ]
)


def meaningful() -> dict[str, str]:
    """Single words of the vocabulary that mean something by themselves, as "mood", "music" or "scene"."""
    homes: dict[str, set[str]] = defaultdict(set)
    for genre, phrases in ASSOCIATIONS.items():
        for word in re.findall("[a-z]{4,}", " ".join(phrases)):
            homes[word].add(genre)
    found = {word: "scene" for word, genres in homes.items() if len(genres) == 1}
    for table_ in (words.INSTRUMENTS, words.GENERIC_INSTRUMENTS, genre_words.NAMES, genre_words.KEYWORDS):
        found |= {phrase: "music" for name, phrases in table_.items() for phrase in (name, *phrases)}
    found |= {phrase: "mood" for name, phrases in words.MOODS.items() for phrase in (name, *phrases)}
    known = set(vocabulary())
    return {word: kind for word, kind in found.items() if word in known and len(word) > 2 and word not in _EMPTY}


def read_wordnet(folder: Path) -> tuple[dict[str, list[str]], dict[str, list[tuple[str, float]]], dict[str, int]]:
    """Read WordNet's index and data files.

    Returns:
        The synsets of every word, its first sense first; the synsets that each leads to, with costs; and how many
        senses of a word its authors met in texts.
    """
    senses: dict[str, list[str]] = defaultdict(list)
    links: dict[str, list[tuple[str, float]]] = defaultdict(list)
    used: dict[str, int] = defaultdict(int)
    for kind, letter in (("adj", "a"), ("noun", "n"), ("verb", "v"), ("adv", "r")):
        for line in (folder / f"index.{kind}").read_text("utf-8").splitlines():
            if line.startswith(" "):
                continue
            fields = line.split()
            start = 4 + int(fields[3])
            senses[fields[0]] += [letter + offset for offset in fields[start + 2 :]]
            used[fields[0]] += int(fields[start + 1])
        for line in (folder / f"data.{kind}").read_text("utf-8").splitlines():
            if line.startswith(" "):
                continue
            fields = line.split(" | ")[0].split()
            pointers = fields[4 + 2 * int(fields[3], 16) :]
            for sign, offset, part in zip(pointers[1::4], pointers[2::4], pointers[3::4], strict=False):
                if sign in _STEPS and part in "anvrs":
                    links[letter + fields[0]].append((part.replace("s", "a") + offset, _STEPS[sign]))
    return senses, links, used


def _starts(
    word: str, kind: str, senses: dict[str, list[str]], links: dict[str, list[tuple[str, float]]]
) -> list[tuple[float, str, str]]:
    """The senses from which a word is near: of a mood its adjectives, of music what music is, of a scene the first."""
    synsets = senses.get(word, [])
    if kind == "mood":
        synsets = [synset for synset in synsets if synset[0] == "a"][:2]
    elif kind == "scene":
        synsets = [synset for synset in synsets if synset[0] == "n"][:1]
    else:
        roots = {senses[name][0] for name in _MUSICAL}
        synsets = [synset for synset in synsets if synset[0] == "n" and _above(synset, links) & roots][:2]
    return [(0.5 * (kind == "scene") + _SENSE * rank, word, synset) for rank, synset in enumerate(synsets)]


def _above(synset: str, links: dict[str, list[tuple[str, float]]]) -> set[str]:
    """A synset and all that it is a kind of."""
    found, left = set(), [synset]
    while left:
        each = left.pop()
        if each not in found:
            found.add(each)
            left += [other for other, step in links.get(each, ()) if step == _STEPS["@"]]
    return found


def nearest_words(folder: Path) -> dict[str, str]:
    """The table, most used words first."""
    known, targets = set(vocabulary()), meaningful()
    senses, links, used = read_wordnet(folder)
    found: dict[str, str] = {}
    for target, line in table("words")["nearest"].items():
        found |= {word: target for word in line.split() if word not in known and target in known}
    for target in sorted(targets):
        for ending in _ENDINGS:
            for stem in {target, target.removesuffix("e"), re.sub("y$", "i", target)}:
                if (word := stem + ending) not in known and word in senses:
                    found.setdefault(word, target)
    # Dijkstra from all targets at once: each synset is reached from the nearest.
    queue = [start for word, kind in targets.items() for start in _starts(word, kind, senses, links)]
    heapq.heapify(queue)
    reached: dict[str, tuple[float, str]] = {}
    while queue:
        cost, target, synset = heapq.heappop(queue)
        if synset in reached or cost > _FARTHEST:
            continue
        reached[synset] = (cost, target)
        for other, step in links.get(synset, ()):
            heapq.heappush(queue, (cost + step, target, other))
    near: list[tuple[int, float, str, str]] = []
    for word, synsets in senses.items():
        if word in known or word in found or not re.fullmatch("[a-z]{3,}", word):
            continue
        ways = [(reached[s][0] + _SENSE * n, reached[s][1]) for n, s in enumerate(synsets[:3]) if s in reached]
        if ways and min(ways)[0] <= _FARTHEST:
            near.append((-min(used[word], 3), *min(ways), word))
    size = sum(len(word) + len(target) + 7 for word, target in found.items())
    for _, _, target, word in sorted(near):
        size += len(word) + len(target) + 7
        if size > LARGEST_FILE:
            break
        found[word] = target
    return dict(sorted(found.items()))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="folder of WordNet's data files"
    )
    parser.add_argument("--out", type=Path, default=NEAREST_WORDS, help="where the table goes")
    arguments = parser.parse_args(argv)
    if not (arguments.wordnet / "data.noun").is_file():
        parser.error(f"no data.noun in {arguments.wordnet}; apt-get install wordnet-base")
    found = nearest_words(arguments.wordnet)
    with atomic_path(arguments.out) as path:
        path.write_text(json.dumps(found, indent=0, separators=(",", ":"), ensure_ascii=True) + "\n", encoding="utf-8")
    print(f"{len(found)} words in {arguments.out}")


if __name__ == "__main__":
    main()
