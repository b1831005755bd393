"""What became of the music: counts, hours, tempi and keys, and every file that was not used with the reason."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any

from riff import __version__
from riff.prepare.settings import PrepareSettings

TEMPO_STEP = 10  # beats per minute in a bar of the histogram
_REASONS = {
    "silent": "silent",
    "unsteady": "no steady beat",
    "damaged": "damaged samples",
    "duplicate": "nearly copies of others",
}


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of :func:`riff.prepare.prepare`.

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
