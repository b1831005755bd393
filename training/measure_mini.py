"""Does riff-mini obey? Prompts from held-out truths, clips drawn from them, shares counted on the clips."""

from __future__ import annotations

import math
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from riff.clip import Clip
from riff.config import SpectrogramConfig
from riff.errors import RiffError
from riff.evaluate import (
    KEYS,
    measure_key,
    measure_tempo,
    mirex_key_score,
    tempo_error,
    wilson_interval,
)
from riff.image import image_to_mel
from riff.inversion import Quality
from riff.spectrogram import mel_to_waveform
from riff.tagger_net import TaggerNet, Verdict, judge
from training.clips import Clips
from training.composer.captions import EvalKind, eval_prompt
from training.composer.score import Truth

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline

KINDS: tuple[EvalKind, ...] = ("plain", "paraphrase", "lead", "key", "tempo")


@dataclass(frozen=True)
class Row:
    """One line of the table; ``low`` and ``high`` are a 95 % interval, NaN where there is none."""

    name: str
    value: float
    clips: int
    low: float = math.nan
    high: float = math.nan
    target: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Task:
    """A prompt, and the held-out clip whose truth it was written from."""

    kind: EvalKind
    prompt: str
    index: int


def choose_tasks(held_out: Clips, kind: EvalKind, count: int, *, rng: random.Random) -> list[Task]:
    """Write ``count`` prompts from held-out truths, every fitting genre equally often."""
    fitting: dict[str, list[int]] = {}
    for index, truth in enumerate(held_out.truths):
        pitched = bool(truth["lead"]) and tuple(truth["instruments"]) != ("drums",)
        if (kind != "tempo" or truth["has_drums"]) and (kind not in ("lead", "key") or pitched):
            fitting.setdefault(truth["genre"], []).append(index)
    names = sorted(fitting)
    rng.shuffle(names)
    chosen = [rng.choice(fitting[names[number % len(names)]]) for number in range(count)]
    truths = [_truth(held_out.truths[index]) for index in chosen]
    prompts = [eval_prompt(truth, rng, kind=kind) for truth in truths]
    return [Task(kind, prompt, index) for prompt, index in zip(prompts, chosen, strict=True)]


def draw_clips(
    pipe: RiffPipeline, tasks: Sequence[Task], *, seed: int, steps: int, guidance: float | None, quality: Quality
) -> list[Clip]:
    """Draw a clip of every task, eight at a time; clip i has seed ``seed + i``. Progress goes to stderr."""
    clips: list[Clip] = []
    began = time.time()
    for start in range(0, len(tasks), 8):
        prompts = [task.prompt for task in tasks[start : start + 8]]
        clips += pipe(
            prompts, seed=seed + start, num_inference_steps=steps, guidance_scale=guidance, quality=quality
        ).clips
        left = (time.time() - began) / len(clips) * (len(tasks) - len(clips))
        print(f"{tasks[0].kind}: {len(clips)}/{len(tasks)}, {left:.0f} s left", file=sys.stderr, flush=True)
    return clips


def judge_clips(model: TaggerNet, images: Sequence[Tensor]) -> Verdict:
    """The classifier's logits for drawn or composed pictures (C, M, N) of any width up to 256."""
    parts = [judge(model, image.mean(0, keepdim=True)[..., :256]) for image in images]
    names = ("genre", "instruments", "lead", "key")
    return Verdict(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def share(name: str, hits: Iterable[bool], *, at_least: float | None = None) -> Row:
    """A counted share with its Wilson interval, against its target."""
    counted = [bool(hit) for hit in hits]
    low, high = wilson_interval(sum(counted), len(counted))
    value = sum(counted) / max(len(counted), 1)
    target = "" if at_least is None else f">= {at_least:.0%}"
    return Row(name, value, len(counted), low, high, target, None if at_least is None else value >= at_least)


def genre_row(name: str, verdict: Verdict, model: TaggerNet, truths: Sequence[dict[str, Any]], target: float) -> Row:
    """How often the classifier hears the genre that was asked for."""
    heard = verdict.genre.argmax(1).tolist()
    pairs = zip(heard, truths, strict=True)
    return share(name, (model.labels.genres[index] == truth["genre"] for index, truth in pairs), at_least=target)


def genre_misses(verdict: Verdict, model: TaggerNet, truths: Sequence[dict[str, Any]]) -> list[tuple[str, str, int]]:
    """Asked and heard genres that differ, most frequent first."""
    heard = [model.labels.genres[index] for index in verdict.genre.argmax(1).tolist()]
    pairs = Counter((truth["genre"], name) for name, truth in zip(heard, truths, strict=True))
    return [(asked, name, count) for (asked, name), count in pairs.most_common() if asked != name]


def lead_rows(prefix: str, verdict: Verdict, model: TaggerNet, truths: Sequence[dict[str, Any]]) -> list[Row]:
    """Is the asked lead heard as the lead, and is it heard among the instruments at all?"""
    labels = model.labels
    leads = [labels.leads[index] for index in verdict.lead.argmax(1).tolist()]
    sounding = [
        {labels.instruments[index] for index in row.nonzero().flatten().tolist()} for row in verdict.instruments > 0
    ]
    asked = [truth["lead"] for truth in truths]
    target = 0.75 if prefix == "generated" else None
    return [
        share(f"{prefix}: lead instrument", (a == b for a, b in zip(leads, asked, strict=True)), at_least=target),
        share(f"{prefix}: lead sounds at all", (b in a for a, b in zip(sounding, asked, strict=True))),
    ]


def tempo_row(prefix: str, sounds: Sequence[Tensor], sample_rate: int, tempi: Sequence[float]) -> Row:
    """Measured tempo within 1 % of the asked one, whatever level of the beat was measured."""
    errors = []
    for sound, asked in zip(sounds, tempi, strict=True):
        try:
            errors.append(tempo_error(measure_tempo(sound, sample_rate), asked))
        except RiffError:  # silence has no tempo: a miss
            errors.append(math.inf)
    target = 0.97 if prefix == "generated" else None
    return share(f"{prefix}: tempo within 1 %", (error < 0.01 for error in errors), at_least=target)


def key_rows(
    prefix: str,
    sounds: Sequence[Tensor],
    sample_rate: int,
    verdict: Verdict,
    truths: Sequence[dict[str, Any]],
) -> list[Row]:
    """Key exact and MIREX score, by pitch classes of the sound and by the classifier on the picture."""
    asked = [truth["keyscale"] for truth in truths]
    by_chroma = [_key(sound, sample_rate) for sound in sounds]
    by_classifier = [KEYS[index] for index in verdict.key.argmax(1).tolist()]
    rows = []
    target = 0.60 if prefix == "generated" else None
    for how, heard in (("chroma", by_chroma), ("classifier", by_classifier)):
        pairs = list(zip(heard, asked, strict=True))
        rows.append(share(f"{prefix}: key by {how}", (a == b for a, b in pairs), at_least=target))
        score = sum(mirex_key_score(a, b) for a, b in pairs if a in KEYS) / max(len(pairs), 1)
        rows.append(Row(f"{prefix}: key by {how}, MIREX score", score, len(pairs)))
    return rows


def sounds_of(images: Sequence[Tensor], tempi: Sequence[float], config: SpectrogramConfig) -> list[Tensor]:
    """Composed pictures through the same phase recovery as drawn ones: the ceiling of the measures."""
    return [
        mel_to_waveform(
            image_to_mel(image, config),
            config,
            bpm=bpm,
            generator=torch.Generator().manual_seed(0),
        )
        for image, bpm in zip(images, tempi, strict=True)
    ]


def matching_others(held_out: Clips, tasks: Sequence[Task], *, rng: random.Random) -> list[tuple[int, int]]:
    """Pair tasks with held-out clips of the same genre that no task was written from.

    Args:
        held_out: composed clips.
        tasks: written from some of them, perhaps more than once from the same.
        rng: draws the partners.

    Returns:
        (place in ``tasks``, index in ``held_out``); no clip occurs twice on either side, so a genre that runs
        out of partners leaves tasks unpaired.
    """
    used = {task.index for task in tasks}
    pools: dict[str, list[int]] = {}
    for index, truth in enumerate(held_out.truths):
        if index not in used:
            pools.setdefault(truth["genre"], []).append(index)
    for pool in pools.values():
        rng.shuffle(pool)
    pairs = []
    for place, task in enumerate(tasks):
        pool = pools.get(held_out.truths[task.index]["genre"], [])
        if task.index in used and pool:
            used.remove(task.index)
            pairs.append((place, pool.pop()))
    return pairs


def _truth(fields: dict[str, Any]) -> Truth:
    names = Truth.__dataclass_fields__
    kept: dict[str, Any] = {name: fields[name] for name in names}
    return Truth(**kept | {"instruments": tuple(fields["instruments"])})


def _key(sound: Tensor, sample_rate: int) -> str:
    try:
        return measure_key(sound, sample_rate)
    except RiffError:  # silence has no key: a miss
        return "none"
