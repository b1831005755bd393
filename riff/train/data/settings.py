"""What clips are cut, how they are captioned and which are kept."""

import dataclasses
from typing import Any, Literal

from riff.spectrogram.config import SpectrogramConfig
from riff.utils.errors import RiffError
from riff.utils.validation import check_number, check_text

Unsteady = Literal["skip", "keep", "seconds"]


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
    """How music becomes a data set.

    Attributes:
        config: of the images; its grid says whether clips are whole bars or seconds.
        bars: bars in a clip on the beats grid; default as many of four beats as fill ``config.width``.
        beats_per_bar: 3 or 4; default what a file's own words say (``"a waltz"``, ``"3/4"``), else 4.
        overlap: share of a clip that the next one repeats, 0 to 0.9, rounded to whole bars on the beats grid.
        unsteady: what becomes of a clip without an even beat. ``"skip"`` leaves it out, for bars cut at wrong
            places teach a model of the beats grid wrong rhythm; ``"keep"`` cuts it where the beats seem to be;
            ``"seconds"`` lays it on an even grid of 120 beats per minute and states no tempo.
        min_loudness: root mean square level in decibels of full scale below which a clip is silent and left out.
        level: whether clips are brought to the level that riff's models know (decibel scale only).
        caption: the user's words for all the music; they stand before those of each file.
        auto: whether captions are made up from what is measured and recognised.
        clap: CLAP whose tags stand after the words: a folder, or a name in the local cache; None asks none.
        tags: whether title, artist and genre in a file caption it where nothing else does.
        text_column: of the captions in tables and data sets; default the first of text, caption, captions, prompt,
            description.
        duplicates: whether clips that are nearly copies of others are kept.
        validation: share of the sources held out, 0 to 0.9.
        shards: whether the clips are packed in Parquet shards rather than in folders of images.

    Raises:
        RiffError: a value is out of range.
    """

    config: SpectrogramConfig = dataclasses.field(default_factory=SpectrogramConfig)
    bars: int | None = None
    beats_per_bar: int | None = None
    overlap: float = 0.0
    unsteady: Unsteady = "skip"
    min_loudness: float = -50.0
    level: bool = True
    caption: str = ""
    auto: bool = False
    clap: str | None = None
    tags: bool = True
    text_column: str | None = None
    duplicates: bool = False
    validation: float = 0.1
    shards: bool = False

    def __post_init__(self) -> None:
        if self.bars is not None:
            check_number(self.bars, "bars", 1, 64, whole=True)
        if self.beats_per_bar not in (None, 3, 4):
            raise RiffError(f"beats_per_bar is {self.beats_per_bar!r}; use 3 or 4")
        if self.unsteady not in ("skip", "keep", "seconds"):
            raise RiffError(f"unsteady is {self.unsteady!r}; use 'skip', 'keep' or 'seconds'")
        check_number(self.overlap, "overlap", 0.0, 0.9)
        check_number(self.validation, "validation", 0.0, 0.9)
        check_number(self.min_loudness, "min_loudness", -120.0, 0.0)
        check_text(self.caption, "caption")
        if self.config.grid == "seconds" and self.bars is not None:
            raise RiffError(f"bars is {self.bars}, but on the seconds grid clips are {self.config.width} columns wide")

    @property
    def bars_per_clip(self) -> int:
        """Bars in a clip on the beats grid."""
        return self.bars or max(1, self.config.width // (4 * self.config.frames_per_beat))

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return dataclasses.asdict(self)


def differing_settings(before: dict[str, Any], now: dict[str, Any]) -> str:
    """How two settings' :meth:`~PrepareSettings.to_dict` differ: ``"bars 2 (now 4), ..."``; empty if they do not."""
    old, new = _flat(before), _flat(now)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {old.get(name)!r} (now {new.get(name)!r})" for name in names)


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    config = fields.get("config")
    inner = config if isinstance(config, dict) else {}
    return {**{name: value for name, value in fields.items() if name != "config"}, **inner}
