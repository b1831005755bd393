"""One piece of music to clips on the disk: what a worker does. All that it needs is in its arguments."""

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
from riff.train.data.captions import read_tags
from riff.train.data.cutting import EVEN_BPM, Cut, SoundStream, blocks, mels_of_cuts, plan_cuts, stretch
from riff.train.data.rows import row_file
from riff.train.data.settings import PrepareSettings
from riff.train.data.sources import MusicSource, StatedMusic, read_stated
from riff.train.data.tables import clean_captions
from riff.train.data.writing import fingerprint
from riff.utils.errors import RiffError, SystemProblem
from riff.utils.files import write_text
from riff.utils.validation import BPM_RANGE

BLOCK = 100.0  # seconds that are worked on at once: most songs in two, at 0.4 GB beside the libraries
AUTO_CAPTIONS = 4  # a clip's captions under --caption auto
KEY_SECONDS = 40.0  # from the middle of a block, of which its key is measured
LEAST_KEY = 0.6  # correlation with a key's profile below which none is stated
Record = dict[str, Any]


def cut_source(source: MusicSource, settings: PrepareSettings, folder: str) -> Record:
    """Cut one source.

    Args:
        source: to read.
        settings: how to cut.
        folder: the work folder; clips go to ``clips/`` in it and the record, last, to ``records/``.

    Returns:
        The record: ``source``, ``prefix``, ``key`` (of :func:`record_key`), ``size``, ``seconds``, ``words``, ``clips``
        (rows of the data set's metadata, with ``print``, the fingerprint), ``skipped`` (clips left out by reason),
        ``problem`` (why the source gave nothing, or None) and ``faults`` (what was wrong, though it was used).

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
            if source.row:
                with row_file(source, place) as path:
                    _cut_file(path, source, settings, place / "clips", record)
            else:
                _cut_file(Path(source.path), source, settings, place / "clips", record)
        except SystemProblem:
            raise
        except RiffError as error:
            record["problem"] = " ".join(str(error).replace(source.path, "it").split())
    write_text(record_path(place, source.name), json.dumps(record))
    return record


def record_path(folder: Path, name: str) -> Path:
    """Where the record of the source ``name`` is in the work folder."""
    return folder / "records" / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.json"


def record_key(source: MusicSource, settings: PrepareSettings) -> str:
    """Changes when the source must be cut again: with its content, its words or the settings."""
    text = json.dumps([source.stamp, source.words, settings.to_dict()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _cut_file(path: Path, source: MusicSource, settings: PrepareSettings, clips: Path, record: Record) -> None:
    try:
        sniff_container(path)  # before anything else opens it: a pipe would never answer
        stated = read_stated(path)
        words = _words(path, source, settings, stated)
        record["words"] = list(words)
        stream = SoundStream(path, settings.config.sample_rate, settings.config.channels)
        cutter = _Cutter(source, settings, words, stated, stream, clips, record)
        cutter.run()
    except SystemProblem:
        raise
    except RiffError as error:
        raise type(error)(str(error).replace(str(path), "it")) from error
    record["skipped"], record["faults"] = dict(cutter.skipped), list(stream.faults)
    if not record["clips"]:
        record["problem"] = _why_nothing(record, cutter.skipped, stream)


def _words(path: Path, source: MusicSource, settings: PrepareSettings, stated: StatedMusic | None) -> tuple[str, ...]:
    words = source.words
    if not words and settings.tags:
        words = clean_captions([stated.prompt if stated is not None else read_tags(path)])
    if settings.caption:
        words = tuple(f"{settings.caption}, {text}" for text in words) or (settings.caption,)
    return clean_captions(list(words))


def _why_nothing(record: Record, skipped: Counter[str], stream: SoundStream) -> str:
    if skipped:
        reason = skipped.most_common(1)[0][0]
        return {
            "silent": "it is silent",
            "unsteady": "no steady beat is heard in it; --unsteady keep or --grid seconds would use it",
            "damaged": stream.faults[0] if stream.faults else "it is damaged",
        }[reason]
    return f"it is shorter than a clip ({record['seconds']:.3g} s)"


@dataclasses.dataclass
class _Cutter:
    """A source being cut; ``record`` and ``skipped`` grow."""

    source: MusicSource
    settings: PrepareSettings
    words: tuple[str, ...]
    stated: StatedMusic | None
    stream: SoundStream
    clips: Path
    record: Record

    def __post_init__(self) -> None:
        text = self.words[0] if self.words else ""
        bpm = self.stated.bpm if self.stated is not None and self.stated.bpm else parse_bpm(text)
        self.stated_bpm = bpm if bpm is not None and BPM_RANGE[0] <= bpm <= BPM_RANGE[1] else None
        metre = self.stated.beats_per_bar if self.stated is not None else parse_time_signature(text)
        self.beats_per_bar = self.settings.beats_per_bar or metre
        self.skipped: Counter[str] = Counter()

    def run(self) -> None:
        """Cut block after block; what is left of one without a whole clip begins the next."""
        config = self.settings.config
        rest, start = torch.zeros(config.channels, 0), 0.0
        for block, last in blocks(self.stream, seconds=BLOCK):
            sound = torch.cat([rest, block], dim=-1)
            self.record["seconds"] = round(start + sound.shape[-1] / config.sample_rate, 3)
            used = self._cut(sound, start)
            if not last:
                first = min(round(used * config.sample_rate), sound.shape[-1])
                # At most half a block is carried on, however little of it is used.
                first = max(first, sound.shape[-1] - round(BLOCK * config.sample_rate / 2))
                rest, start = sound[:, first:], start + first / config.sample_rate

    def _cut(self, sound: Tensor, offset: float) -> float:
        """Write the clips of a sound that begins ``offset`` seconds into the source; the seconds it was used up to."""
        config = self.settings.config
        seconds = sound.shape[-1] / config.sample_rate
        beats = None if self.stated is None else self.stated.beats_from(offset, seconds)
        plan = plan_cuts(sound, self.settings, self.beats_per_bar, stated_bpm=self.stated_bpm, beats=beats)
        chosen = [(cut, level) for cut in plan.cuts if (level := self._level(cut, sound, offset)) is not None]
        if not chosen:
            return plan.used
        key = self.stated.key if self.stated is not None and self.stated.key else None
        key = key or _key_of(sound, config.sample_rate)
        listens = self.settings.auto or self.settings.clap is not None
        for (cut, level), mel in zip(chosen, mels_of_cuts(sound, [cut for cut, _ in chosen], config), strict=True):
            gain = 10.0 ** ((LEVEL - level) / 20.0) if self.settings.level and config.amplitude == "decibel" else 1.0
            part = stretch(sound, cut.start, cut.end, config.sample_rate) if listens else None
            self._write(cut, mel * gain, None if part is None else part * gain, offset, key)
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

    def _write(self, cut: Cut, mel: Tensor, sound: Tensor | None, offset: float, key: str | None) -> None:
        config, number = self.settings.config, len(self.record["clips"])
        name = f"{self.source.prefix}-{number:04d}.png"
        encoded = _encode(mel, cut, config)
        start = max(0.0, offset + cut.start)
        made = encoded.metadata | {"source": self.source.name, "start_s": round(start, 3)}
        captions, bpm, key = self._captions(cut, encoded, sound, key, number)
        write_png(self.clips / name, encoded.image, config, metadata=made)
        self.record["clips"].append(
            {
                "file_name": name,
                "text": captions[0],
                "captions": captions,
                "bpm": None if bpm is None else round(bpm, 3),
                "keyscale": key,
                "beats_per_bar": self.beats_per_bar if config.grid == "beats" else None,
                "source": self.source.name,
                "start_s": round(start, 3),
                "duration_s": round(cut.end - cut.start, 3),
                "max_value": encoded.max_value,
                "print": base64.b64encode(fingerprint(mel).tobytes()).decode("ascii"),
            }
        )

    def _captions(
        self, cut: Cut, encoded: Encoded, sound: Tensor | None, key: str | None, number: int
    ) -> tuple[list[str], float | None, str | None]:
        """A clip's captions, at least one, its tempo and its key."""
        bpm, config, words = cut.bpm, self.settings.config, self.words
        if sound is not None and self.settings.clap is not None:
            from riff.train.data.wording import clap_tags

            more = clap_tags(sound, config.sample_rate, self.settings.clap)
            words = clean_captions([", ".join(filter(None, (text, more))) for text in words or ("",)])
        if sound is None or not self.settings.auto:
            return list(words) or [""], bpm, key
        from riff.train.data.auto_caption import describe

        image = encoded.image.mean(0, keepdim=True)
        found = describe(sound, config.sample_rate, beats=cut.beats_within(), image=image, config=config)
        rng = random.Random(f"{self.source.name} {number}")
        words = words or ("",)
        each = max(1, AUTO_CAPTIONS // len(words))
        captions = clean_captions([caption for text in words for caption in found.captions(text, rng, each)])
        return list(captions) or [""], bpm if bpm is not None else found.bpm, found.keyscale or key


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
