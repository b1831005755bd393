"""What became of the music: counts, hours, tempi and keys, and every file that was not used with the reason."""

import base64
import dataclasses
import hashlib
import html
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from riff.audio.io import save_audio
from riff.spectrogram.codec import SpectrogramCodec
from riff.spectrogram.display import data_uri, paint
from riff.spectrogram.png import read_png
from riff.spectrogram.tempo import TempoMap
from riff.tasks.gallery import SCRIPT, STYLE
from riff.train.data.settings import PrepareSettings
from riff.train.data.writing import read_pictures
from riff.utils.errors import RiffError
from riff.utils.files import write_text
from riff.version import __version__

TEMPO_STEP = 10  # beats per minute in a bar of the histogram
_REASONS = {
    "silent": "silent",
    "unsteady": "no steady beat",
    "damaged": "damaged samples",
    "duplicate": "nearly copies of others",
}


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of :func:`riff.train.data.prepare.prepare`.

    Attributes:
        dataset: the folder that was written.
        clips: clips in it.
        train: those to train on.
        validation: those held out.
        sources: pieces of music found.
        used: those of which at least one clip is in the data set.
        hours: of clips, overlaps counted twice.
        hours_read: of music.
        skipped: clips left out, by reason: silent, unsteady, damaged, duplicate.
        without_words: clips with the empty caption.
        tempi: clips by tempo: the lower end of ten beats per minute, as text, to a number.
        keys: clips by key.
        metres: clips by beats per bar, as text.
        unused: music that gave nothing, to the reason.
        faults: music that was used although something was wrong with it, to what that was.
        no_audio: captions without sound.
        ignored: files that are no music, by suffix.
        kept: sources of an earlier run that MUSIC does not hold any more, whose clips stay.
        settings: that made it.
        riff: version.
    """

    dataset: str
    clips: int
    train: int
    validation: int
    sources: int
    used: int
    hours: float
    hours_read: float
    skipped: dict[str, int]
    without_words: int
    tempi: dict[str, int]
    keys: dict[str, int]
    metres: dict[str, int]
    unused: dict[str, str]
    faults: dict[str, list[str]]
    no_audio: list[str]
    ignored: dict[str, int]
    kept: list[str]
    settings: dict[str, Any]
    riff: str = __version__

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """The report in a few lines for people."""
        found = [
            f"{self.clips} clips ({_hours(self.hours)}) from {self.used} of {self.sources} files "
            f"({_hours(self.hours_read)}): {self.train} to train on, {self.validation} held out"
        ]
        if self.skipped:
            left = ", ".join(f"{count} {_REASONS[reason]}" for reason, count in sorted(self.skipped.items()))
            found.append(f"clips left out: {left}")
        if self.without_words:
            found.append(f"{self.without_words} clips have no caption (--caption auto makes some)")
        if self.unused:
            name, why = next(iter(self.unused.items()))
            found.append(f"{len(self.unused)} files not used, as {name!r}: {why}")
        if self.no_audio:
            found.append(f"{len(self.no_audio)} captions not used, as {self.no_audio[0]!r}")
        return found


def make_report(
    dataset: str,
    records: list[dict[str, Any]],
    rows: dict[str, list[dict[str, Any]]],
    repeats: int,
    settings: PrepareSettings,
    *,
    unused: dict[str, str],
    no_audio: list[str],
    ignored: dict[str, int],
    kept: list[str],
) -> Report:
    """Sum up.

    Args:
        dataset: the folder.
        records: of all sources that were worked through.
        rows: of the clips in the data set, by split.
        repeats: clips left out because they are nearly copies.
        settings: that made it.
        unused: sound without a record, and why.
        no_audio: captions without sound.
        ignored: other files by suffix.
        kept: sources that are not in MUSIC any more.
    """
    every = [row for split in rows.values() for row in split]
    used = {row["source"] for row in every}
    skipped: Counter[str] = Counter({"duplicate": repeats} if repeats else {})
    for record in records:
        skipped.update(record["skipped"])
    left = {record["source"]: record["problem"] or "all its clips are nearly copies of others" for record in records}
    left = unused | {name: why for name, why in left.items() if name not in used}
    tempi = Counter(int(row["bpm"] // TEMPO_STEP) * TEMPO_STEP for row in every if row["bpm"] is not None)
    return Report(
        dataset=dataset,
        clips=len(every),
        train=len(rows["train"]),
        validation=len(rows["validation"]),
        sources=len(records) + len(unused),
        used=len(used),
        hours=_in_hours(row["duration_s"] for row in every),
        hours_read=_in_hours(record["seconds"] for record in records),
        skipped=dict(sorted(skipped.items())),
        without_words=sum(not row["text"] for row in every),
        tempi={str(tempo): tempi[tempo] for tempo in sorted(tempi)},
        keys=dict(Counter(row["keyscale"] for row in every if row["keyscale"]).most_common()),
        metres=dict(Counter(str(row["beats_per_bar"]) for row in every if row["beats_per_bar"])),
        unused=dict(sorted(left.items())),
        faults={record["source"]: record["faults"] for record in records if record["faults"]},
        no_audio=no_audio,
        ignored=ignored,
        kept=kept,
        settings=settings.to_dict(),
    )


def _in_hours(seconds: Iterable[float]) -> float:
    return round(sum(seconds) / 3600.0, 4)


def _hours(hours: float) -> str:
    if hours >= 1.0:
        return f"{hours:.1f} h"
    return f"{hours * 60.0:.1f} min"


# WAS riff/prepare/page.py: The report as one web page that needs nothing from elsewhere: histograms, clips to
# see and hear, what was left.

SAMPLES = 12
MOST_NAMES = 500  # in a list on the page; report.json has all
_SIZE = (448, 112)
_CSS = """
section { margin: 0 0 1.6rem; } section h2 { font-size: 1.1rem; margin: 0 0 .6rem; }
.plots { display: flex; flex-wrap: wrap; gap: 1.2rem 2.4rem; }
.plots svg { max-width: 100%; height: auto; font: 11px system-ui, sans-serif; fill: currentColor; }
.plots rect { fill: var(--accent); }
table { border-collapse: collapse; font-size: .88rem; } td { padding: .18rem 1rem .18rem 0; vertical-align: top;
  overflow-wrap: anywhere; border-bottom: 1px solid var(--line); } td + td { color: var(--soft); }
"""


def write_page(dataset: Path, report: Report, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Write ``index.html``, unless the one that is there says the same.

    Args:
        dataset: the folder.
        report: what is said.
        rows: of the clips in the data set, by split.
    """
    shown = shown_rows(rows)
    content = json.dumps([report.to_dict(), shown], sort_keys=True)
    mark = f'<meta name="riff-content" content="{hashlib.sha256(content.encode()).hexdigest()[:32]}">'
    path = dataset / "index.html"
    if path.is_file() and mark in path.read_text(encoding="utf-8", errors="replace")[:2000]:
        return
    title = html.escape(dataset.resolve().name or "data set")
    cards = "\n".join(_cards(dataset, shown))
    find = '<input type="search" placeholder="find in captions" aria-label="find in captions" hidden>'
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in report.lines())
    write_text(
        path,
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{mark}\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="riff {__version__}">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{title} · {report.clips} clips</title>\n<style>{STYLE}{_CSS}</style>\n</head>\n<body>\n"
        f"<header><div><h1>{title}</h1>{lines}</div>{find}</header>\n"
        f'<section class="plots">{"".join(_plots(report))}</section>\n'
        f"<section><h2>some of the clips, played from their pictures</h2>\n<main>\n{cards}\n</main></section>\n"
        f"{''.join(_tables(report))}"
        f'<p class="origin">Made with riff {__version__} prepare. All figures are in report.json.</p>\n'
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n",
    )


def shown_rows(rows: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows whose clips the page shows: some from all over the list."""
    every = [row for split in rows.values() for row in split]
    count = min(SAMPLES, len(every))
    return [every[number * len(every) // count] for number in range(count)]


def bars(counts: Mapping[str, int], title: str) -> str:
    """A histogram as SVG; empty without counts."""
    if not counts:
        return ""
    most, step, height = max(counts.values()), 26, 120
    width = max(step * len(counts) + 10, 7 * len(title))
    parts = [f"<text x='0' y='12' font-weight='600'>{html.escape(title)}</text>"]
    for number, (name, count) in enumerate(counts.items()):
        tall = max(1.0, height * count / most)
        left, top = number * step, 34 + height - tall
        parts.append(f"<rect x='{left}' y='{top:.1f}' width='{step - 4}' height='{tall:.1f}' rx='3'/>")
        parts.append(f"<text x='{left + (step - 4) / 2}' y='{top - 4:.1f}' text-anchor='middle'>{count}</text>")
        turned = f"transform='rotate(-45 {left + step / 2} {50 + height})'"
        parts.append(
            f"<text x='{left + step / 2}' y='{50 + height}' text-anchor='end' {turned}>{html.escape(name)}</text>"
        )
    whole = height + 100
    return (
        f"<svg viewBox='-30 0 {width + 30} {whole}' width='{width + 30}' height='{whole}' role='img' "
        f'aria-label="{html.escape(title, quote=True)}">{"".join(parts)}</svg>'
    )


def _plots(report: Report) -> Iterator[str]:
    tempi = {f"{low}–{int(low) + TEMPO_STEP - 1}": count for low, count in report.tempi.items()}
    yield bars(tempi, "clips by tempo (bpm)")
    yield bars(report.keys, "clips by key")
    yield bars(report.metres, "clips by beats per bar")


def _cards(dataset: Path, rows: list[dict[str, Any]]) -> Iterator[str]:
    for row, path in _pictures(dataset, rows):
        try:
            yield _card(row, path)
        except RiffError as error:  # somebody changed the file
            yield f'<article><div class="text"><p class="problem">{html.escape(str(error))}</p></div></article>'


def _pictures(dataset: Path, rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Path]]:
    """Rows and files of their pictures; those in shards are unpacked for the time being."""
    names = [row["file_name"] for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        for name, content in read_pictures(dataset, names):
            (Path(folder) / name).write_bytes(content)
        places = (Path(folder), dataset / "train", dataset / "validation")
        for row in rows:
            yield row, next((at / row["file_name"] for at in places if (at / row["file_name"]).is_file()), places[1])


def _card(row: dict[str, Any], path: Path) -> str:
    image, config, made = read_png(path)
    tempo = TempoMap.from_dict(made["tempo"]) if "tempo" in made else made.get("bpm")
    sound = SpectrogramCodec(config).decode(image, bpm=tempo, max_value=made.get("max_value"), quality="fast")
    picture = paint(image, width=_SIZE[0], height=_SIZE[1], dark=config.amplitude == "decibel")
    with tempfile.TemporaryDirectory() as folder:
        content = save_audio(Path(folder) / "clip.mp3", sound, config.sample_rate).read_bytes()
    facts = [f"{row['bpm']:.4g} bpm" if row["bpm"] else "", row["keyscale"] or "", f"{row['duration_s']:.1f} s"]
    where = f"{row['source']} at {row['start_s']:.1f} s"
    listed = "".join(f"<li>{html.escape(fact)}</li>" for fact in [*facts, where] if fact)
    return (
        f'<article><div class="picture"><img src="{data_uri(picture, "WEBP", quality=70, method=4)}" '
        f'alt="spectrogram" width="{_SIZE[0]}" height="{_SIZE[1]}"><i></i></div><div class="text">'
        f'<h2>{html.escape(row["text"] or "(no caption)")}</h2><ul class="facts">{listed}</ul>'
        f'<audio controls loop preload="none" src="data:audio/mpeg;base64,{base64.b64encode(content).decode("ascii")}" '
        f'aria-label="{html.escape(row["file_name"], quote=True)}"></audio></div></article>'
    )


def _tables(report: Report) -> Iterator[str]:
    yield _table("music that was not used", report.unused.items())
    faults = ((name, "; ".join(texts)) for name, texts in report.faults.items())
    yield _table("music that was used although", faults)
    yield _table("captions without sound", ((line, "") for line in report.no_audio))
    yield _table("not in the folder of music any more", ((name, "its clips were kept") for name in report.kept))
    yield _table("other files passed over", ((suffix, str(count)) for suffix, count in report.ignored.items()))


def _table(title: str, pairs: Iterable[tuple[str, str]]) -> str:
    listed = list(pairs)
    if not listed:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(text)}</td></tr>" for name, text in listed[:MOST_NAMES]
    )
    more = f"<p>and {len(listed) - MOST_NAMES} more in report.json</p>" if len(listed) > MOST_NAMES else ""
    return f"<section><h2>{title} ({len(listed)})</h2><table>{rows}</table>{more}</section>\n"
