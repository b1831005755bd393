"""The clips in a folder as cards: what each file says about itself, and a small picture of its sound."""

import dataclasses
import html
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from torch import Tensor

from riff.audio.io import audio_seconds, load_audio, read_metadata
from riff.audio.tags import MACHINE_MADE
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.display import Shown, data_uri, paint
from riff.spectrogram.image import mel_to_image
from riff.spectrogram.mel import waveform_to_mel
from riff.spectrogram.png import read_png
from riff.tasks.provenance import read_sound_tags
from riff.utils.errors import RiffError
from riff.utils.files import write_text
from riff.version import __version__

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".png")
SIZE = (448, 112)  # of the small picture, in pixels; seven kilobytes or so
_NUMBERED = re.compile(r"\d{4,}-.+")


@dataclasses.dataclass(frozen=True)
class Card:
    """One clip.

    Attributes:
        file: its name in the folder.
        made: how it was made, by its own account (:func:`riff.tasks.provenance.provenance`); empty if riff did not write it.
        seconds: its length; 0 for a picture.
        picture: ``data:`` address of a small picture; empty if the file cannot be read.
        problem: why it cannot.
    """

    file: str
    made: dict[str, str]
    seconds: float = 0.0
    picture: str = ""
    problem: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether it can be played as it is."""
        return not self.file.lower().endswith(".png")


def numbered_files(folder: str | Path) -> list[Path]:
    """The clips ``0000-name.wav``, ``0001-...`` in a folder, in the order of their numbers."""
    found = [
        path
        for path in Path(folder).iterdir()
        if path.suffix.lower() in SUFFIXES and _NUMBERED.fullmatch(path.stem) and path.is_file()
    ]
    return sorted(found, key=lambda path: (int(path.stem.partition("-")[0]), path.name))


def how_made(path: str | Path) -> dict[str, str]:
    """What a sound or a picture says about how it was made; empty if riff did not write it or it cannot be read."""
    try:
        if Path(path).suffix.lower() != ".png":
            return read_sound_tags(read_metadata(path))
        made = read_png(path)[2]
    except RiffError:
        return {}
    return {name: _plain(value) for name, value in made.items()} if made.get("origin") == MACHINE_MADE else {}


def read_card(path: Path) -> Card:
    """The card of one file; one that cannot be read says so on its card."""
    try:
        made = how_made(path)
        if path.suffix.lower() == ".png":
            image, config, _ = read_png(path)
            return Card(path.name, made, picture=_small(image, config))
        image, config = _picture(path, made)
        return Card(path.name, made, audio_seconds(path), _small(image, config))
    except RiffError as error:
        return Card(path.name, {}, problem=str(error))


def _picture(path: Path, made: dict[str, str]) -> tuple[Tensor, SpectrogramConfig]:
    """The sound as riff-mini draws it, quiet ones brought up so that there is something to see."""
    config = SpectrogramConfig()
    waveform, _ = load_audio(path, sample_rate=config.sample_rate, channels=1)
    loudest = float(waveform.abs().max())
    if loudest > 0.0:
        waveform = waveform * min(0.7 / loudest, 30.0)
    return mel_to_image(waveform_to_mel(waveform, config, bpm=_tempo(made)), config), config


def _tempo(made: dict[str, str]) -> float:
    """The tempo that a stranger's metadata says, if it is one; what it is changes only the picture's columns."""
    try:
        bpm = float(made.get("bpm", ""))
    except ValueError:
        return 120.0
    return bpm if 20.0 <= bpm <= 400.0 else 120.0


def _small(image: Tensor, config: SpectrogramConfig) -> str:
    picture = paint(image, width=SIZE[0], height=SIZE[1], dark=config.amplitude == "decibel")
    return data_uri(picture, "WEBP", quality=70, method=4)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# WAS riff/sheet.py: A contact sheet: one web page on which a folder's clips are heard and seen; it needs
# nothing from elsewhere.

NAME = "index.html"
# Fields that stand on the card itself, or are the same on every card of every sheet.
_SHOWN = ("prompt", "seed", "software", "origin", "keyscale", "loop")
_LONG = 120  # characters of a prompt that are sure to stand on the card in full
_ARTICLE = re.compile(r'<article data-stamp="([^"]+)".*?</article>', re.DOTALL)


class ContactSheet:
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
        """Write index.html, wholly or not at all; errors as in :func:`riff.utils.files.atomic_path`."""
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


# WAS riff/show.py: What notebooks and web pages show: coloured spectrograms, players and line plots that need
# no other file.

LINES = ("#7c5cff", "#e8574c", "#1f9e89", "#d99000", "#3b8fd9", "#8a8a99")
_LEFT, _TOP, _RIGHT, _BOTTOM = 58, 30, 14, 42  # pixels round a plot, for its numbers and names


def plot(
    lines: Mapping[str, Sequence[float]],
    *,
    x: Sequence[float] | None = None,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    marks: Sequence[float] = (),
    size: tuple[int, int] = (720, 240),
) -> Shown:
    """A plot of some lines, drawn as SVG in the page's own text colour, so that it is read in the dark as well.

    Args:
        lines: name to values; each value at its place of ``x``.
        x: one place for each value; default 0, 1, 2, ...
        title: above the plot.
        x_label: below it.
        y_label: beside it.
        marks: places of dashed vertical lines: bars, seams, keyframes.
        size: width and height in pixels.

    Raises:
        RiffError: no lines, lines of other lengths than ``x``, or numbers that are not finite.
    """
    first = next(iter(lines.values()), ())
    places = np.asarray(range(len(first)) if x is None else x, dtype=float)
    rows = {name: np.asarray(values, dtype=float) for name, values in lines.items()}
    if not len(places) or any(row.shape != places.shape or not np.isfinite(row).all() for row in rows.values()):
        raise RiffError("a plot needs lines of finite numbers, each as long as x")
    width, height = size
    y_ticks = _ticks(min(float(row.min()) for row in rows.values()), max(float(row.max()) for row in rows.values()))
    across = _Scale((float(places.min()), float(places.max())), (_LEFT, width - _RIGHT))
    up = _Scale((y_ticks[0], y_ticks[-1]), (height - _BOTTOM, _TOP))
    middle = _text((_LEFT + width - _RIGHT) / 2, height - 6, x_label, anchor="middle")
    side = f"<g transform='translate(13 {(_TOP + height - _BOTTOM) / 2}) rotate(-90)'>"
    parts = [
        _text(_LEFT, 16, title, weight=600),
        *_grid(across, up, y_ticks, marks),
        *_curves(rows, places, across, up),
        f"{middle}{side}{_text(0, 0, y_label, anchor='middle')}</g>",
    ]
    name = html.escape(title or y_label or "plot", quote=True)
    return Shown(
        f"<svg viewBox='0 0 {width} {height}' width='{width}' height='{height}' role='img' aria-label=\"{name}\" "
        f"style='font:12px system-ui,sans-serif;max-width:100%;height:auto' fill='currentColor' stroke='none'>"
        f"{''.join(parts)}</svg>"
    )


@dataclasses.dataclass(frozen=True)
class _Scale:
    """From numbers to pixels."""

    values: tuple[float, float]
    pixels: tuple[float, float]

    def __call__(self, value: float) -> float:
        (low, high), (start, end) = self.values, self.pixels
        share = (float(value) - low) / (high - low) if high > low else 0.5
        return start + share * (end - start)

    def holds(self, value: float) -> bool:
        low, high = self.values
        return low - 1e-9 <= value <= high + 1e-9


def _grid(across: _Scale, up: _Scale, y_ticks: list[float], marks: Sequence[float]) -> Iterator[str]:
    """Level lines with their numbers, the numbers below, and dashed lines at the marks."""
    (left, right), (bottom, top) = across.pixels, up.pixels
    for tick in y_ticks:
        yield _line(left, up(tick), right, up(tick), "stroke-opacity='.15'")
        yield _text(left - 8, up(tick) + 4, f"{tick:g}", anchor="end")
    for tick in filter(across.holds, _ticks(*across.values)):
        yield _text(across(tick), bottom + 18, f"{tick:g}", anchor="middle")
    for mark in filter(across.holds, marks):
        yield _line(across(mark), top, across(mark), bottom, "stroke-opacity='.5' stroke-dasharray='4 4'")


def _curves(rows: dict[str, np.ndarray], places: np.ndarray, across: _Scale, up: _Scale) -> Iterator[str]:
    """The lines; where there are several, their names in their colours, from the right."""
    legend = across.pixels[1]
    for number, (name, row) in reversed(list(enumerate(rows.items()))):
        colour = LINES[number % len(LINES)]
        points = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in zip(places, row, strict=True))
        yield f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='2'/>"
        if len(rows) > 1:
            yield _text(legend, 16, name, anchor="end", colour=colour, weight=600)
            legend -= 7.5 * len(name) + 16


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, about five steps, that enclose ``low`` and ``high``."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    return [round((first + index) * step, 10) for index in range(math.ceil(high / step - 1e-9) - first + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, more: str) -> str:
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='currentColor' {more}/>"


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = "", weight: int = 400) -> str:
    fill = f" fill='{colour}'" if colour else ""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-weight='{weight}'{fill}>{html.escape(text)}</text>"
    )


# WAS riff/style.py: How a contact sheet looks, and what moves on it; without the script all is there, only the
# line stands still.

STYLE = """
:root { color-scheme: light dark; --ground: #f6f4ef; --card: #ffffff; --ink: #1d1b26; --soft: #66626f; --line: #e4e0d8;
  --accent: #6c3fd1; }
@media (prefers-color-scheme: dark) { :root { --ground: #121019; --card: #1c1926; --ink: #efecf6; --soft: #a59fb5;
  --line: #2d293a; --accent: #b69cff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 88rem; padding: 0 clamp(.8rem, 3vw, 2.5rem) 3rem; background: var(--ground);
  color: var(--ink); font: 16px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header { display: flex; flex-wrap: wrap; gap: .8rem 2rem; align-items: end; justify-content: space-between;
  padding: clamp(1.4rem, 4vw, 2.8rem) 0 clamp(1rem, 2vw, 1.6rem); }
h1 { margin: 0; font-size: clamp(1.5rem, 4vw, 2.2rem); line-height: 1.15; letter-spacing: -.02em;
  overflow-wrap: anywhere; }
header p { margin: .25rem 0 0; color: var(--soft); }
input { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 99px;
  padding: .5rem 1rem; width: 17rem; max-width: 100%; }
main { display: grid; gap: clamp(.8rem, 1.6vw, 1.4rem);
  grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
article { background: var(--card); border: 1px solid var(--line); border-radius: 14px; overflow: hidden;
  display: flex; flex-direction: column; content-visibility: auto; contain-intrinsic-size: auto 19rem; }
article[hidden] { display: none; }
article:has(audio.on) { border-color: var(--accent); box-shadow: 0 0 0 1px var(--accent); }
.picture { position: relative; background: #0b0a1f; aspect-ratio: 4; cursor: pointer; }
.picture img { display: block; width: 100%; height: 100%; object-fit: fill; }
.picture i { position: absolute; inset: 0 auto 0 0; width: 2px; background: #fff; box-shadow: 0 0 6px #0009;
  opacity: 0; }
.on-air i { opacity: .95; }
.nothing { margin: 0; height: 100%; display: grid; place-items: center; color: #a59fb5; }
.text { display: flex; flex-direction: column; gap: .6rem; flex: 1; padding: .85rem 1rem .8rem; }
h2 { margin: 0; font-size: 1rem; font-weight: 600; line-height: 1.35; overflow-wrap: anywhere;
  display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 4; overflow: hidden; }
.facts { display: flex; flex-wrap: wrap; gap: .15rem .9rem; margin: 0; padding: 0; list-style: none; color: var(--soft);
  font-size: .86rem; font-variant-numeric: tabular-nums; }
audio { display: block; width: 100%; height: 40px; margin-top: auto; }
footer { display: flex; gap: 1rem; align-items: baseline; justify-content: space-between;
  font-size: .82rem; color: var(--soft); }
footer > :last-child { margin-left: auto; }
a { color: var(--accent); text-decoration: none; font-variant-numeric: tabular-nums; }
@media (max-width: 40rem) { header, header > input { width: 100%; } }
a:hover { text-decoration: underline; }
details { min-width: 0; flex: 1; }
summary { cursor: pointer; padding: .3rem 0; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .15rem .9rem; margin: .5rem 0 .2rem; }
dt { white-space: nowrap; }
dd { margin: 0; color: var(--ink); white-space: pre-line; overflow-wrap: anywhere; max-height: 9rem; overflow: auto; }
.problem { margin: auto 0 0; color: #c43c3c; font-size: .86rem; overflow-wrap: anywhere; }
.origin { margin: 2rem 0 0; color: var(--soft); font-size: .82rem; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media print { audio, input, details { display: none; } article { break-inside: avoid; } }
"""
# One clip at a time; a line that runs through the picture of the one that plays; a touch of the picture plays from
# there; prompts can be searched where there are many.
SCRIPT = """
const players = [...document.querySelectorAll('audio')];
for (const player of players) {
  if (players.length <= 60) player.preload = 'metadata';
  const picture = player.closest('article').querySelector('.picture'), line = picture.querySelector('i');
  const draw = () => {
    if (player.duration) line.style.left = 100 * player.currentTime / player.duration + '%';
    if (!player.paused) requestAnimationFrame(draw);
  };
  player.addEventListener('play', () => {
    for (const other of players) if (other !== player) other.pause();
    player.classList.add('on'); picture.classList.add('on-air'); draw();
  });
  player.addEventListener('pause', () => player.classList.remove('on'));
  player.addEventListener('seeked', draw);
  picture.addEventListener('click', event => {
    const share = event.offsetX / picture.clientWidth;
    const seek = () => { player.currentTime = share * player.duration; player.play(); };
    if (player.duration) seek();
    else { player.addEventListener('loadedmetadata', seek, { once: true }); player.preload = 'auto'; player.load(); }
  });
}
const find = document.querySelector('input'), cards = [...document.querySelectorAll('article')];
if (cards.length > 6) {
  find.hidden = false;
  find.addEventListener('input', () => {
    const words = find.value.toLowerCase().split(/\\s+/);
    for (const card of cards) {
      const text = card.querySelector('.text').textContent.toLowerCase();
      card.hidden = !words.every(word => text.includes(word));
    }
  });
}
"""
