"""Measure riff-mini against what it must reach, on prompts written from held-out seeds.

    python -m training.measure.riff_mini --model riff/models/riff-mini --data runs/data --out report.json
    [--quick]

The judge of genre, instruments and key is trained on composed clips (or read from --classifier) and checked
on held-out ones first; every figure on drawn clips has the same figure on composed clips beside it where
that is a ceiling.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riff.diffusion.latents import image_to_latents, latents_to_image
from riff.evaluate.figures import frechet_distance, wilson_interval
from riff.evaluate.image_metrics import mel_statistics, near_copies, psnr, sharpness
from riff.music.key import measure_key, mirex_key_score
from riff.music.tagger_net import TaggerNet, Verdict, judge
from riff.music.tempo_estimation import measure_tempo, tempo_error
from riff.music.theory import KEYS
from riff.pipeline import RiffPipeline
from riff.spectrogram.config import Quality, SpectrogramConfig
from riff.spectrogram.image import image_to_mel
from riff.spectrogram.inversion.waveform import mel_to_waveform
from riff.tasks.clip import Clip
from riff.utils.errors import RiffError
from riff.utils.files import write_json
from training.composer.captions import EvalKind, eval_prompt
from training.composer.score import Truth
from training.measure import riff_mini as likeness
from training.measure import riff_mini as measure
from training.recipes.dataset import Clips, load_clips
from training.recipes.tagger import check, obtain_classifier

# Does riff-mini obey? Prompts from held-out truths, clips drawn from them, shares counted on the clips.


@dataclass(frozen=True)
class Task:
    """A prompt, and the held-out clip whose truth it was written from."""

    kind: EvalKind
    prompt: str
    index: int


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The drawn clips of one kind of prompt, with what they were asked to be."""

    tasks: list[Task]
    images: list[Tensor]
    sounds: list[Tensor]
    truths: list[dict[str, Any]]


def draw_all(pipe: RiffPipeline, held_out: Clips, arguments: argparse.Namespace) -> dict[str, Drawn]:
    """Draw every kind of prompt; phases are worked out in full only where the sound is measured."""
    rng = random.Random(arguments.seed)
    drawn: dict[str, Drawn] = {}
    for number, kind in enumerate(KINDS):
        tasks = measure.choose_tasks(held_out, kind, arguments.prompts, rng=rng)
        clips = measure.draw_clips(
            pipe,
            tasks,
            seed=arguments.seed + 10_000 * number,
            steps=arguments.steps,
            guidance=arguments.guidance,
            quality="default" if kind in ("key", "tempo") else "fast",
        )
        truths = [held_out.truths[task.index] for task in tasks]
        drawn[kind] = Drawn(tasks, [clip.image.cpu() for clip in clips], [clip.waveform for clip in clips], truths)
        if arguments.samples is not None:
            arguments.samples.mkdir(parents=True, exist_ok=True)
            for place, clip in enumerate(clips[:30]):
                clip.save(arguments.samples / f"{kind}-{place:02d}.png", overwrite=True)
    return drawn


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


def control_rows(drawn: dict[str, Drawn], held_out: Clips, model: TaggerNet, config: SpectrogramConfig) -> list[Row]:
    """Do the clips obey? Genre, lead, tempo and key, each with its ceiling on composed clips."""
    rate = config.sample_rate
    verdicts = {kind: measure.judge_clips(model, part.images) for kind, part in drawn.items()}
    rows = [
        measure.genre_row(f"generated: genre ({kind})", verdicts[kind], model, drawn[kind].truths, target)
        for kind, target in (("plain", 0.92), ("paraphrase", 0.80))
    ]
    rows += measure.lead_rows("generated", verdicts["lead"], model, drawn["lead"].truths)
    tempo, key = drawn["tempo"], drawn["key"]
    # The prompt asks for whole beats per minute.
    asked = [float(round(truth["bpm"])) for truth in tempo.truths]
    rows.append(measure.tempo_row("generated", tempo.sounds, rate, asked))
    rows += measure.key_rows("generated", key.sounds, rate, verdicts["key"], key.truths)

    def composed(part: Drawn) -> tuple[list[Tensor], list[Tensor]]:
        images = [held_out.picture(task.index) for task in part.tasks]
        return images, measure.sounds_of(images, [truth["bpm"] for truth in part.truths], config)

    lead_images = [held_out.picture(task.index) for task in drawn["lead"].tasks]
    rows += measure.lead_rows("composed", measure.judge_clips(model, lead_images), model, drawn["lead"].truths)
    _, sounds = composed(tempo)
    rows.append(measure.tempo_row("composed", sounds, rate, [truth["bpm"] for truth in tempo.truths]))
    images, sounds = composed(key)
    rows += measure.key_rows("composed", sounds, rate, measure.judge_clips(model, images), key.truths)
    return rows


def likeness_rows(drawn: dict[str, Drawn], held_out: Clips, train: Clips, pipe: RiffPipeline, seed: int) -> list[Row]:
    """Are the pictures like real ones, and not copies of them?"""
    tasks = [task for part in drawn.values() for task in part.tasks]
    images = [image for part in drawn.values() for image in part.images]
    real = [held_out.picture(task.index) for task in tasks]
    pairs = measure.matching_others(held_out, tasks, rng=random.Random(seed))
    paired = [images[place] for place, _ in pairs]
    paired_real = [real[place] for place, _ in pairs]
    others = [held_out.picture(index) for _, index in pairs]
    rows = [likeness.round_trip_row(pipe, real[:60]), likeness.sharpness_row(images, real)]
    rows += likeness.frechet_rows(paired, paired_real, others)
    rows += likeness.copy_rows(images, train, held_out)
    return rows


def variety(pipe: RiffPipeline, drawn: dict[str, Drawn], arguments: argparse.Namespace) -> Row:
    """Draw the first plain prompts again with other seeds."""
    tasks = drawn["plain"].tasks[:12]
    again = measure.draw_clips(
        pipe,
        tasks,
        seed=arguments.seed + 900_000,
        steps=arguments.steps,
        guidance=arguments.guidance,
        quality="fast",
    )
    return likeness.variety_row(drawn["plain"].images[: len(tasks)], [clip.image.cpu() for clip in again])


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | value | 95 % interval | clips | target | met |", "|---|---|---|---|---|---|"]
    for row in rows:
        interval = "" if math.isnan(row.low) else f"{row.low:.3f}..{row.high:.3f}"
        met = "" if row.met is None else "yes" if row.met else "NO"
        lines.append(f"| {row.name} | {row.value:.3f} | {interval} | {row.clips} | {row.target} | {met} |")
    return "\n".join(lines)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="folder of the model; default: the one in the package")
    parser.add_argument("--data", type=Path, required=True, help="folder made by training.recipes.dataset")
    parser.add_argument("--out", type=Path, required=True, help="report, JSON; the table goes beside it as .md")
    parser.add_argument("--prompts", type=int, default=120, help="prompts of each of the five kinds")
    parser.add_argument("--quick", action="store_true", help="30 prompts of each kind")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps")
    parser.add_argument("--guidance", type=float, default=None, help="guidance scale; default: the pipeline's")
    parser.add_argument("--scheduler", default=None, help="scheduler; default: the checkpoint's")
    parser.add_argument("--device", default=None, help="cpu or cuda; default: the fastest there is")
    parser.add_argument("--seed", type=int, default=1_000_000)
    parser.add_argument("--classifier", type=Path, default=Path("runs/classifier.safetensors"), help="cached judge")
    parser.add_argument("--classifier-steps", type=int, default=1800, help="batches of 32, if it must be trained")
    parser.add_argument("--train-limit", type=int, default=8000, help="training clips to read")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samples", type=Path, default=None, help="folder for the first 30 pictures of each kind")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.prompts = 30
    return arguments


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", message="the model knows no word")
    config = SpectrogramConfig.load(arguments.data)
    began = time.time()
    model = obtain_classifier(
        arguments.data,
        arguments.classifier,
        config=config,
        limit=arguments.train_limit,
        steps=arguments.classifier_steps,
    )
    held_out = load_clips(arguments.data / "heldout")
    judged = check(model, held_out)
    pipe = RiffPipeline.from_pretrained(arguments.model, device=arguments.device, scheduler=arguments.scheduler)
    if pipe.config != config:
        raise RiffError(f"{arguments.model} and {arguments.data} have different spectrogram configs")
    started = time.time()
    drawn = draw_all(pipe, held_out, arguments)
    per_clip = (time.time() - started) / (len(KINDS) * arguments.prompts)
    rows = judge_rows(judged) + control_rows(drawn, held_out, model, config)
    train = load_clips(arguments.data / "train", limit=arguments.train_limit)
    rows += likeness_rows(drawn, held_out, train, pipe, arguments.seed)
    rows.append(variety(pipe, drawn, arguments))
    misses = {
        kind: measure.genre_misses(measure.judge_clips(model, drawn[kind].images), model, drawn[kind].truths)
        for kind in ("plain", "paraphrase")
    }
    settings = {name: str(value) for name, value in vars(arguments).items()}
    report = {
        "rows": [_plain(row) for row in rows],
        "classifier": judged,
        "genre_misses": misses,
        "prompts": {kind: [task.prompt for task in part.tasks] for kind, part in drawn.items()},
        "settings": settings | {"seconds_per_clip": f"{per_clip:.2f}", "seconds": f"{time.time() - began:.0f}"},
    }
    write_json(arguments.out, report)
    arguments.out.with_suffix(".md").write_text(table(rows) + "\n", encoding="utf-8")
    print(table(rows))
    print(f"asked -> heard, plain: {misses['plain'][:12]}", file=sys.stderr)


def judge_rows(judged: dict[str, Any]) -> list[Row]:
    """The judge's own accuracy on composed held-out clips."""
    rows = []
    for name, target in (("genre", 0.97), ("lead", None), ("key", None)):
        part = judged[name]
        met = None if target is None else part["share"] >= target
        text = "" if target is None else f">= {target:.0%}"
        rows.append(
            Row(
                f"composed: {name} by the judge",
                part["share"],
                judged["clips"],
                part["low"],
                part["high"],
                text,
                met,
            )
        )
    return rows


def _plain(row: Row) -> dict[str, Any]:
    """JSON has no NaN."""
    fields = dataclasses.asdict(row)
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in fields.items()
    }


# Are riff-mini's pictures like composed ones, sharp, various, and not copies?


@torch.inference_mode()
def round_trip_row(pipe: RiffPipeline, pictures: Sequence[Tensor]) -> Row:
    """PSNR of held-out pictures after the VAE, over all their pixels."""
    vae = pipe.components.vae
    squares, pixels = 0.0, 0
    for picture in pictures:
        batch = picture[None].to(vae.device, vae.dtype)
        back = latents_to_image(image_to_latents(batch, vae), vae, channels=len(picture)).cpu().float()[0]
        squares += 10 ** (-psnr(back, picture) / 10) * picture.numel()
        pixels += picture.numel()
    value = -10 * math.log10(max(squares / pixels, 1e-12))
    return Row("VAE round trip PSNR (dB)", value, len(pictures), target=">= 26", met=value >= 26)


def sharpness_row(drawn: Sequence[Tensor], real: Sequence[Tensor]) -> Row:
    """Mean absolute difference along frequency, drawn over real."""
    ratio = float(np.mean([sharpness(image) for image in drawn]) / np.mean([sharpness(image) for image in real]))
    return Row("sharpness, generated / real", ratio, len(drawn), target="0.85..1.15", met=0.85 <= ratio <= 1.15)


def frechet_rows(drawn: Sequence[Tensor], real: Sequence[Tensor], others: Sequence[Tensor]) -> list[Row]:
    """Fréchet distances on mel statistics to ``others`` (real): of the drawn, and of as many real ones."""
    features = [np.concatenate([mel_statistics(image[None]) for image in images]) for images in (drawn, real, others)]
    ours, theirs = frechet_distance(features[0], features[2]), frechet_distance(features[1], features[2])
    return [
        Row(
            "Fréchet (mel statistics), generated to real",
            ours,
            len(drawn),
            target="<= 2 x",
            met=ours <= 2 * theirs,
        ),
        Row("Fréchet (mel statistics), real to real", theirs, len(real)),
        Row("Fréchet, ratio", ours / theirs, len(drawn), target="<= 2", met=ours <= 2 * theirs),
    ]


def copy_rows(drawn: Sequence[Tensor], train: Clips, held_out: Clips) -> list[Row]:
    """Is any drawn 4/4 clip nearer to a training clip than real clips are?"""
    wide = torch.stack([image.mean(0) for image in drawn if image.shape[-1] == train.pictures.shape[-1]])
    fours = [[truth["beats_per_bar"] == 4 for truth in clips.truths] for clips in (train, held_out)]
    found = near_copies(
        wide, train.pictures[torch.tensor(fours[0])], held_out=held_out.pictures[torch.tensor(fours[1])]
    )
    copies = len(found.copies)
    return [
        Row(
            f"near-copies (similarity > {found.threshold:.3f})",
            copies,
            len(wide),
            target="0",
            met=copies == 0,
        ),
        Row("likeness to nearest training clip, generated (mean)", float(found.similarity.mean()), len(wide)),
        Row(
            "likeness to nearest training clip, held-out (mean)",
            float(found.held_out.mean()),
            len(found.held_out),
        ),
    ]


def variety_row(first: Sequence[Tensor], second: Sequence[Tensor]) -> Row:
    """Two seeds of one prompt: the smallest mean absolute difference of their pictures."""
    gaps = []
    for a, b in zip(first, second, strict=True):
        width = min(a.shape[-1], b.shape[-1])
        gaps.append(float((a[..., :width] - b[..., :width]).abs().mean()))
    smallest = min(gaps)
    return Row("two seeds, smallest mean difference", smallest, len(gaps), target="> 0.02", met=smallest > 0.02)


KINDS: tuple[EvalKind, ...] = ("plain", "paraphrase", "lead", "key", "tempo")


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
    kept: dict[str, Any] = {name: fields[name] for name in names if name in fields}
    return Truth(**kept | {"instruments": tuple(fields["instruments"])})


def _key(sound: Tensor, sample_rate: int) -> str:
    try:
        return measure_key(sound, sample_rate)
    except RiffError:  # silence has no key: a miss
        return "none"


if __name__ == "__main__":
    main()
