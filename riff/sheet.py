"""A contact sheet: one web page on which a folder's clips are heard and seen; it needs nothing from elsewhere."""

import html
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from riff import __version__
from riff.cards import Card, numbered_files, read_card
from riff.errors import RiffError
from riff.files import write_text
from riff.style import SCRIPT, STYLE

NAME = "index.html"
# Fields that stand on the card itself, or are the same on every card of every sheet.
_SHOWN = ("prompt", "seed", "software", "origin", "keyscale", "loop")
_LONG = 120  # characters of a prompt that are sure to stand on the card in full
_ARTICLE = re.compile(r'<article data-stamp="([^"]+)".*?</article>', re.DOTALL)


class Sheet:
    """The sheet of one folder: it always lists the files that are there.

    Its page is its own memory: a clip whose file has not changed keeps its card, so that a sheet of a thousand clips is
    written again in no time.

    Args:
        folder: with clips ``0000-name.wav``, ``0001-...``.

    Raises:
        RiffError: the folder has an index.html that is not a sheet of riff's.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / NAME
        self._cards = dict(_remembered(self.path))

    def write(self) -> Path:
        """Write index.html, wholly or not at all; errors as in :func:`riff.files.atomic_path`."""
        files = numbered_files(self.folder)
        cards = {_stamp(path): path for path in files}
        self._cards = {stamp: self._cards.get(stamp) or _article(stamp, path) for stamp, path in cards.items()}
        title = self.folder.resolve().name or "riff"
        write_text(self.path, _page(title, self._cards.values()))
        return self.path


def check_sheet(folder: str | Path, *, force: bool = False) -> None:
    """Raise RiffError if a sheet in ``folder`` would replace somebody else's index.html."""
    path = Path(folder) / NAME
    if path.exists() and not force and _GENERATOR not in _read(path):
        raise RiffError(f"{path} is not one of riff's sheets; choose another folder, or --force to replace it")


def draw_card(card: Card, stamp: str) -> str:
    """One clip as HTML; every text in it is escaped, whoever wrote it."""
    made, link = card.made, html.escape(quote(card.file), quote=True)
    prompt = html.escape(made.get("prompt") or card.file)
    name = html.escape(card.file, quote=True)
    picture = '<p class="nothing">no picture</p>'
    if card.picture:
        picture = f'<img src="{card.picture}" alt="spectrogram" width="448" height="112">'
    inside = f'<div class="picture">{picture}<i></i></div>'
    loop = " loop" if made.get("loop") == "True" else ""
    player = f'<audio controls{loop} preload="none" src="{link}" aria-label="{name}"></audio>' if card.is_sound else ""
    if card.problem:
        player = f'<p class="problem">{html.escape(card.problem)}</p>'
    facts = "".join(f"<li>{html.escape(fact)}</li>" for fact in _facts(card))
    rows = "".join(
        f"<dt>{html.escape(field.replace('_', ' '))}</dt><dd>{html.escape(value)}</dd>"
        for field, value in made.items()
        if field not in _SHOWN or (field == "prompt" and len(value) > _LONG)
    )
    more = f"<details><summary>how it was made</summary><dl>{rows}</dl></details>" if rows else ""
    number = html.escape(card.file.partition("-")[0])
    return (
        f'<article data-stamp="{stamp}" data-seconds="{card.seconds:.2f}">{inside}<div class="text">'
        f'<h2>{prompt}</h2><ul class="facts">{facts}</ul>{player}'
        f'<footer>{more}<a href="{link}" title="{name}">#{number}</a></footer></div></article>'
    )


def _facts(card: Card) -> Iterable[str]:
    made = card.made
    if "seed" in made:
        yield f"seed {made['seed']}"
    if "bpm" in made:
        yield f"{_short(made['bpm'])} bpm"
    if "keyscale" in made:
        yield made["keyscale"]
    if card.seconds:
        yield f"{card.seconds:.1f} s"
    if made.get("loop") == "True":
        yield "loop"


def _short(number: str) -> str:
    """A number with at most two decimals; anything else as it is."""
    try:
        return f"{round(float(number), 2):g}"
    except ValueError:
        return number


def _article(stamp: str, path: Path) -> str:
    return draw_card(read_card(path), stamp)


def _stamp(path: Path) -> str:
    """Name, size and time of a file, as text for an attribute: another one is another clip."""
    status = path.stat()
    return f"{html.escape(quote(path.name), quote=True)}:{status.st_size}:{status.st_mtime_ns}"


_GENERATOR = '<meta name="generator" content="riff '


def _remembered(path: Path) -> Iterable[tuple[str, str]]:
    """Stamps and cards of the page that is there, if this version of riff wrote it."""
    page = _read(path) if path.is_file() else ""
    if f'{_GENERATOR}{__version__}">' not in page:
        return []
    return [(found[1], found[0]) for found in _ARTICLE.finditer(page)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _page(title: str, cards: Iterable[str]) -> str:
    cards = list(cards)
    seconds = sum(float(found) for card in cards for found in re.findall(r'data-seconds="([\d.]+)"', card[:400]))
    count = f"{len(cards)} clip{'' if len(cards) == 1 else 's'}"
    length = f" · {_length(seconds)} of music" if seconds else ""
    name = html.escape(title)
    find = '<input type="search" placeholder="find in prompts" aria-label="find in prompts" hidden>'
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{_GENERATOR}{__version__}">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{name} · {count}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header><div><h1>{name}</h1><p>{count}{length}</p></div>{find}</header>\n"
        f"<main>\n{chr(10).join(cards) or '<p>no clips yet</p>'}\n</main>\n"
        f'<p class="origin">Machine-made with riff {__version__}. Every file says how it was made.</p>\n'
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _length(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
