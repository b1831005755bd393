"""One piece of music to clips on the disk: what a worker does, and all that it needs is in its arguments."""

import base64
import dataclasses
import hashlib
import json
import math
import random
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riff.audio.channels import to_mono
from riff.audio.formats import sniff_container
from riff.music.alignment import LEVEL
from riff.music.key import key_scores, pitch_classes
from riff.music.theory import KEYS, parse_bpm, parse_time_signature
from riff.spectrogram.codec import Encoded
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import mel_to_image
from riff.spectrogram.png import write_png
from riff.spectrogram.tempo import TempoMap
from riff.train.data.cutting import EVEN_BPM, Cut, Stream, blocks, draw_span, plan_cuts, stretch
from riff.train.data.settings import PrepareSettings
from riff.train.data.sources import Source, cleaned, read_tags
from riff.train.data.writing import fingerprint
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import write_text
from riff.utils.validation import BPM_RANGE

BLOCK = 100.0  # seconds that are worked on at once: most songs in two, at 0.4 GB beside the libraries
AUTO_CAPTIONS = 4  # a clip's captions under --caption auto
KEY_SECONDS = 40.0  # from the middle of a block, of which its key is measured
LEAST_KEY = 0.6  # correlation with a key's profile below which none is said
Record = dict[str, Any]


def work(source: Source, settings: PrepareSettings, folder: str) -> Record:
    """Cut one source.

    Args:
        source: to read.
        settings: how to cut.
        folder: the work folder; clips go to ``clips/`` in it and the record, last, to ``records/``.

    Returns:
        The record: ``source``, ``prefix``, ``key`` (of :func:`record_key`), ``size``, ``seconds``, ``words``, ``clips``
        (rows of the data set's metadata, with ``print``, the fingerprint), ``skipped`` (clips left out by reason),
        ``problem`` (why the source gave nothing, or None) and ``faults`` (what was wrong but could be got over).

    Raises:
        SystemProblem: the disk is full or cannot be written, or a package is missing.
    """
    place = Path(folder)
    record: Record = {
        "source": source.name,
        "prefix": source.prefix,
        "key": record_key(source, settings),
        "size": source.size,
        "seconds": 0.0,
        "words": list(source.words),
        "clips": [],
        "skipped": {},
        "problem": None,
        "faults": [],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _cut(source, settings, place / "clips", record)
        except SystemProblem:
            raise
        except RiffError as error:
            record["problem"] = " ".join(str(error).replace(source.path, "it").split())
    write_text(record_path(place, source.name), json.dumps(record))
    return record


def record_path(folder: Path, name: str) -> Path:
    """Where the record of the source ``name`` lies in the work folder."""
    return folder / "records" / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.json"


def record_key(source: Source, settings: PrepareSettings) -> str:
    """Changes when the source must be cut again: with its content, its words or the settings."""
    text = json.dumps([source.stamp, source.words, settings.to_dict()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _cut(source: Source, settings: PrepareSettings, clips: Path, record: Record) -> None:
    if source.row:
        from riff.train.data.sources import row_file

        with row_file(source, clips.parent) as path:
            try:
                _cut_file(path, source, settings, clips, record)
            except SystemProblem:
                raise
            except RiffError as error:
                raise RiffError(str(error).replace(str(path), "it")) from error
    else:
        _cut_file(Path(source.path), source, settings, clips, record)


def _cut_file(path: Path, source: Source, settings: PrepareSettings, clips: Path, record: Record) -> None:
    config = settings.config
    sniff_container(path)  # before anything else opens it: a pipe would never answer
    words = _words(path, source, settings)
    record["words"] = list(words)
    text = words[0] if words else ""
    beats_per_bar = settings.beats_per_bar or parse_time_signature(text)
    stated = parse_bpm(text)
    if stated is not None and not BPM_RANGE[0] <= stated <= BPM_RANGE[1]:
        stated = None
    stream = Stream(path, config.sample_rate, config.channels)
    skipped: Counter[str] = Counter()
    job = _Job(source, settings, words, beats_per_bar, stated, stream, clips, skipped, record["clips"])
    rest, start = torch.zeros(config.channels, 0), 0.0
    for block, last in blocks(stream, seconds=BLOCK):
        sound = torch.cat([rest, block], dim=-1)
        record["seconds"] = round(start + sound.shape[-1] / config.sample_rate, 3)
        used = job.cut(sound, start)
        if not last:
            first = min(round(used * config.sample_rate), sound.shape[-1])
            # What is left of a block without a clip is not carried on for ever.
            first = max(first, sound.shape[-1] - round(BLOCK * config.sample_rate / 2))
            rest, start = sound[:, first:], start + first / config.sample_rate
    record["skipped"], record["faults"] = dict(skipped), list(stream.faults)
    if not record["clips"]:
        record["problem"] = _why_nothing(record, skipped, stream)


def _words(path: Path, source: Source, settings: PrepareSettings) -> tuple[str, ...]:
    words = source.words
    if not words and settings.tags:
        words = cleaned([read_tags(path)])
    if settings.caption:
        words = tuple(f"{settings.caption}, {text}" for text in words) or (settings.caption,)
    return cleaned(list(words))


def _why_nothing(record: Record, skipped: Counter[str], stream: Stream) -> str:
    if skipped:
        reason = skipped.most_common(1)[0][0]
        return {
            "silent": "it is silent",
            "unsteady": "no steady beat is heard in it; --unsteady keep or --grid seconds would use it",
            "damaged": stream.faults[0] if stream.faults else "it is damaged",
        }[reason]
    return f"it is shorter than a clip ({record['seconds']:.3g} s)"


@dataclasses.dataclass
class _Job:
    """A source being cut.

    Attributes:
        skipped: clips left out by reason; grows.
        rows: of the clips written; grows.
    """

    source: Source
    settings: PrepareSettings
    words: tuple[str, ...]
    beats_per_bar: int
    stated_bpm: float | None
    stream: Stream
    clips: Path
    skipped: Counter[str]
    rows: list[dict[str, Any]]

    def cut(self, sound: Tensor, offset: float) -> float:
        """Write the clips of a sound that begins ``offset`` seconds into the source; the seconds it was used up to."""
        plan = plan_cuts(sound, self.settings, self.beats_per_bar, stated_bpm=self.stated_bpm)
        chosen = [(cut, level) for cut in plan.cuts if (level := self._level(cut, sound, offset)) is not None]
        if not chosen:
            return plan.used
        keyscale = _key_of(sound, self.settings.config.sample_rate)
        config, listens = self.settings.config, self.settings.auto or self.settings.clap is not None
        for (cut, level), mel in zip(chosen, draw_span(sound, [cut for cut, _ in chosen], config), strict=True):
            gain = 10.0 ** ((LEVEL - level) / 20.0) if self.settings.level and config.amplitude == "decibel" else 1.0
            part = stretch(sound, cut.start, cut.end, config.sample_rate) if listens else None
            self._write(cut, mel * gain, None if part is None else part * gain, offset, keyscale)
        return plan.used

    def _level(self, cut: Cut, sound: Tensor, offset: float) -> float | None:
        """A clip's level in decibels of full scale, or None if it is left out, which is counted."""
        part = stretch(sound, cut.start, cut.end, self.settings.config.sample_rate)
        level = 10.0 * math.log10(float(to_mono(part).double().square().mean()) + 1e-20)
        holes = self.stream.holes
        if any(start < offset + cut.end and offset + cut.start < end for start, end in holes):
            self.skipped["damaged"] += 1
        elif level < self.settings.min_loudness:
            self.skipped["silent"] += 1
        elif not cut.steady and self.settings.unsteady == "skip":
            self.skipped["unsteady"] += 1
        else:
            return level
        return None

    def _write(self, cut: Cut, mel: Tensor, sound: Tensor | None, offset: float, keyscale: str | None) -> None:
        config, number = self.settings.config, len(self.rows)
        name = f"{self.source.prefix}-{number:04d}.png"
        encoded = _encode(mel, cut, config)
        start = max(0.0, offset + cut.start)
        made = encoded.metadata | {"source": self.source.name, "start_s": round(start, 3)}
        captions, bpm, keyscale = self._captions(cut, encoded, sound, keyscale, number)
        write_png(self.clips / name, encoded.image, config, metadata=made)
        self.rows.append(
            {
                "file_name": name,
                "text": captions[0],
                "captions": captions,
                "bpm": None if bpm is None else round(bpm, 3),
                "keyscale": keyscale,
                "beats_per_bar": self.beats_per_bar if config.grid == "beats" else None,
                "source": self.source.name,
                "start_s": round(start, 3),
                "duration_s": round(cut.end - cut.start, 3),
                "max_value": encoded.max_value,
                "print": base64.b64encode(fingerprint(mel).tobytes()).decode("ascii"),
            }
        )

    def _captions(
        self, cut: Cut, encoded: Encoded, sound: Tensor | None, keyscale: str | None, number: int
    ) -> tuple[list[str], float | None, str | None]:
        """A clip's captions, at least one, its tempo and its key."""
        bpm, config, words = cut.bpm, self.settings.config, self.words
        if sound is not None and self.settings.clap is not None:
            from riff.train.data.auto_caption import clap_tags

            heard = clap_tags(sound, config.sample_rate, self.settings.clap)
            words = cleaned([", ".join(filter(None, (text, heard))) for text in words or ("",)])
        if sound is None or not self.settings.auto:
            return list(words) or [""], bpm, keyscale
        from riff.train.data.auto_caption import describe

        image = encoded.image.mean(0, keepdim=True)
        told = describe(sound, config.sample_rate, beats=cut.beats_within(), image=image, config=config)
        rng = random.Random(f"{self.source.name} {number}")
        words = words or ("",)
        each = max(1, AUTO_CAPTIONS // len(words))
        captions = cleaned([caption for text in words for caption in told.captions(text, rng, each)])
        return list(captions) or [""], bpm if bpm is not None else told.bpm, told.keyscale or keyscale


def _encode(mel: Tensor, cut: Cut, config: SpectrogramConfig) -> Encoded:
    image = mel_to_image(mel, config)
    loudest = float(mel.max()) if config.amplitude == "power" else 0.0
    tempo: float | TempoMap | None = None
    if config.grid == "beats":
        intervals = np.diff(cut.beats)
        even = not cut.beats or bool(np.allclose(intervals, intervals.mean(), rtol=1e-4))
        tempo = (cut.bpm or EVEN_BPM) if even else TempoMap.from_beats(cut.beats)
    return Encoded(image, max_value=loudest if loudest > 0.0 else None, bpm=tempo)


def _key_of(sound: Tensor, rate: int) -> str | None:
    """The key of a block, measured in its middle; two bars would leave it open more often."""
    spare = max(0, sound.shape[-1] - round(KEY_SECONDS * rate))
    try:
        scores = key_scores(pitch_classes(sound[:, spare // 2 : sound.shape[-1] - spare // 2], rate))
    except RiffError:
        return None
    return KEYS[int(np.argmax(scores))] if float(scores.max()) >= LEAST_KEY else None
