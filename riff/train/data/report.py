"""What became of the music: counts, hours, tempi and keys, and every file that was not used with the reason."""

import dataclasses
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from riff.audio.io import save_audio
from riff.spectrogram.codec import SpectrogramCodec
from riff.spectrogram.display import to_data_uri
from riff.spectrogram.png import read_png
from riff.spectrogram.tempo import TempoMap
from riff.tasks.gallery import thumbnail
from riff.train.data.settings import PrepareSettings
from riff.train.data.shards import read_images
from riff.train.data.sources import Listing
from riff.train.data.worker import Record
from riff.utils.errors import RiffError
from riff.utils.files import write_text
from riff.utils.pages import render
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
        no_audio: captions that are not used, each with the reason.
        caption_notes: captions that are used with a remark, such as a guessed encoding.
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
    caption_notes: list[str]
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
        for lines, what in ((self.no_audio, "captions not used"), (self.caption_notes, "remarks on captions")):
            if lines:
                more = f" (and {len(lines) - 1} more in report.json)" if len(lines) > 1 else ""
                found.append(f"{what}: {lines[0]}{more}")
        return found


def make_report(
    dataset: str,
    records: dict[str, Record],
    rows: dict[str, list[dict[str, Any]]],
    repeats: int,
    settings: PrepareSettings,
    listing: Listing,
) -> Report:
    """Sum up.

    Args:
        dataset: its name.
        records: of all sources that were cut, now or earlier, by name.
        rows: of the clips in the data set, by split.
        repeats: clips left out because they are nearly copies.
        settings: that made it.
        listing: the music that was found, with what failed in its ``unused``.
    """
    every = [row for split in rows.values() for row in split]
    used = {row["source"] for row in every}
    skipped: Counter[str] = Counter({"duplicate": repeats} if repeats else {})
    for record in records.values():
        skipped.update(record["skipped"])
    failed = {name: why for name, why in listing.unused.items() if name not in records}
    empty = {name: record["problem"] or "all its clips are nearly copies of others" for name, record in records.items()}
    unused = failed | {name: why for name, why in empty.items() if name not in used}
    tempi = Counter(int(row["bpm"] // TEMPO_STEP) * TEMPO_STEP for row in every if row["bpm"] is not None)
    return Report(
        dataset=dataset,
        clips=len(every),
        train=len(rows["train"]),
        validation=len(rows["validation"]),
        sources=len(records) + len(failed),
        used=len(used),
        hours=_in_hours(row["duration_s"] for row in every),
        hours_read=_in_hours(record["seconds"] for record in records.values()),
        skipped=dict(sorted(skipped.items())),
        without_words=sum(not row["text"] for row in every),
        tempi={str(tempo): tempi[tempo] for tempo in sorted(tempi)},
        keys=dict(Counter(row["keyscale"] for row in every if row["keyscale"]).most_common()),
        metres=dict(Counter(str(row["beats_per_bar"]) for row in every if row["beats_per_bar"])),
        unused=dict(sorted(unused.items())),
        faults={name: record["faults"] for name, record in sorted(records.items()) if record["faults"]},
        no_audio=listing.no_audio,
        caption_notes=listing.notes,
        ignored=listing.ignored,
        kept=sorted(set(records) - {source.name for source in listing.sources}),
        settings=settings.to_dict(),
    )


def _in_hours(seconds: Iterable[float]) -> float:
    return round(sum(seconds) / 3600.0, 4)


def _hours(hours: float) -> str:
    if hours >= 1.0:
        return f"{hours:.1f} h"
    return f"{hours * 60.0:.1f} min"


# The report as one web page that needs nothing from elsewhere.

SAMPLES = 12
MOST_NAMES = 500  # in a list on the page; report.json has all


def write_page(dataset: Path, report: Report, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Write ``index.html``, unless the one that is there says the same.

    Args:
        dataset: the folder.
        report: what the page says.
        rows: of the clips in the data set, by split.
    """
    shown = shown_rows(rows)
    content = json.dumps([report.to_dict(), shown], sort_keys=True)
    mark = hashlib.sha256(content.encode()).hexdigest()[:32]
    path = dataset / "index.html"
    if path.is_file() and f'content="{mark}"' in path.read_text(encoding="utf-8", errors="replace")[:2000]:
        return
    tempi = {f"{low}–{int(low) + TEMPO_STEP - 1}": count for low, count in report.tempi.items()}
    plots = [("clips by tempo (bpm)", tempi), ("clips by key", report.keys), ("clips by beats per bar", report.metres)]
    write_text(path, render(
        "train/data/templates/prepare.html",
        mark=mark,
        name=dataset.resolve().name or "data set",
        clips=report.clips,
        lines=report.lines(),
        plots=plots,
        cards=_cards(dataset, shown),
        tables=_tables(report),
        most=MOST_NAMES,
    ))  # fmt: skip


def shown_rows(rows: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows whose clips the page shows: some from all over the list."""
    every = [row for split in rows.values() for row in split]
    count = min(SAMPLES, len(every))
    return [every[number * len(every) // count] for number in range(count)]


def _cards(dataset: Path, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What the card of each row shows. Spectrograms in shards are unpacked for the time being."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in read_images(dataset, [row["file_name"] for row in rows]):
            (Path(folder) / name).write_bytes(content)
        places = (Path(folder), dataset / "train", dataset / "validation")
        for row in rows:
            path = next((at / row["file_name"] for at in places if (at / row["file_name"]).is_file()), places[1])
            card = {"title": row["text"] or "(no caption)", "facts": _facts(row), "name": row["file_name"]}
            try:
                image, sound = _show(path)
                yield card | {"image": image, "sound": sound, "problem": ""}
            except RiffError as error:  # the file was changed in the meantime
                yield card | {"image": "", "sound": "", "problem": str(error)}


def _show(path: Path) -> tuple[str, str]:
    """A small spectrogram and its sound, each as the text that stands in ``src``."""
    image, config, made = read_png(path)
    tempo = TempoMap.from_dict(made["tempo"]) if "tempo" in made else made.get("bpm")
    sound = SpectrogramCodec(config).decode(image, bpm=tempo, max_value=made.get("max_value"), quality="fast")
    with tempfile.TemporaryDirectory() as folder:
        content = save_audio(Path(folder) / "clip.mp3", sound, config.sample_rate).read_bytes()
    return thumbnail(image, config), to_data_uri(content, "audio/mpeg")


def _facts(row: dict[str, Any]) -> list[str]:
    tempo = f"{row['bpm']:.4g} bpm" if row["bpm"] else ""
    where = f"{row['source']} at {row['start_s']:.1f} s"
    return [tempo, row["keyscale"] or "", f"{row['duration_s']:.1f} s", where]


def _tables(report: Report) -> list[tuple[str, list[tuple[str, str]]]]:
    return [
        ("music that was not used", list(report.unused.items())),
        ("music that was used although", [(name, "; ".join(texts)) for name, texts in report.faults.items()]),
        ("captions that were not used", [(line, "") for line in report.no_audio]),
        ("captions that were used with a remark", [(line, "") for line in report.caption_notes]),
        ("not in the folder of music any more", [(name, "its clips were kept") for name in report.kept]),
        ("other files passed over", [(suffix, str(count)) for suffix, count in report.ignored.items()]),
    ]
