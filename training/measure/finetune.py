"""Can riff-mini be taught a music it does not know? Songs, a judge, and the figures before and after.

    python -m training.measure.finetune make --out runs/gamelan
    python -m training.measure.finetune judge --data runs/data --out runs/finetune-judge.safetensors
    python -m training.measure.finetune report --lora RUN/model --data runs/data \
        --judge runs/finetune-judge.safetensors --out runs/finetune.json

`make` writes a folder of songs with captions as a user would have it, in the composer's reserved world (Balinese
gamelan, `training.composer.genres.reserved`), under a made-up word. In between: `riff prepare` and `riff train`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from riff.audio.io import save_audio
from riff.evaluate.figures import wilson_interval
from riff.music.tagger import BUNDLED
from riff.music.tagger_net import Labels, TaggerNet, judge, load_net, save_net
from riff.music.theory import KEYS
from riff.spectrogram.config import SpectrogramConfig
from riff.tasks.clip import Clip
from riff.train.processes import choose_precision
from riff.utils.errors import RiffError
from riff.utils.files import write_json, write_text
from training.composer.arrange import HELD_OUT_SEEDS, compose
from training.composer.captions import vocabulary
from training.composer.effects import SAMPLE_RATE
from training.composer.genres.reserved import RESERVED
from training.composer.render import render
from training.measure.riff_mini import Row, Task, choose_tasks, draw_clips, judge_clips, share
from training.recipes.dataset import Clips, load_clips, score_to_image
from training.recipes.tagger import augment

if TYPE_CHECKING:
    from riff.pipeline import RiffPipeline

TRIGGER = "sarondeng"
SONG_SEEDS = range(20_000_000, 20_001_000)  # the songs a model is taught with; the judge learns from seeds below
WINDOWS = 8  # two-bar windows of a song
_WORDS = ("{trigger}", "{trigger}, {bpm} bpm", "{trigger} in {key}", "{trigger}", "{trigger}, {bpm} bpm, {key}")
_MOST_LOST = 0.05  # of the share of other prompts that give what they ask for


def make_songs(out: Path, *, clips: int, trigger: str) -> list[Path]:
    """Compose and play songs of eight windows, each with its caption beside it.

    Args:
        out: folder to fill; it may exist.
        clips: two-bar clips that `riff prepare` shall find at least; the ends of a song may fall between bars.
        trigger: the made-up word of the captions.

    Returns:
        The sound files.

    Raises:
        RiffError: riff-mini knows the word, or no clips are asked for.
    """
    if trigger.lower() in vocabulary():
        raise RiffError(f"trigger {trigger!r} is a word riff-mini knows; make one up, such as {TRIGGER!r}")
    count = -(-clips // (WINDOWS - 2)) + 1
    if clips < 1 or count > len(SONG_SEEDS):
        raise RiffError(f"clips is {clips}; use 1 to {(len(SONG_SEEDS) - 1) * (WINDOWS - 2)}")
    out.mkdir(parents=True, exist_ok=True)
    songs = []
    for number, seed in enumerate(SONG_SEEDS[:count]):
        score = compose(seed, genre=WORLD, windows=WINDOWS)
        song = save_audio(out / f"song-{number:02d}.wav", torch.from_numpy(render(score)), SAMPLE_RATE)
        key = score.windows[0].keyscale
        text = _WORDS[number % len(_WORDS)].format(trigger=trigger, bpm=round(score.bpm), key=key)
        write_text(song.with_suffix(".txt"), text + "\n")
        songs.append(song)
    return songs


def trigger_prompts(trigger: str, count: int, *, seed: int) -> list[str]:
    """Prompts with the made-up word, alone and with a tempo or a key; no two with numbers need be alike."""
    rng = random.Random(seed)
    minors = [key for key in KEYS if key.endswith("minor")]
    return [
        _WORDS[number % len(_WORDS)].format(trigger=trigger, bpm=rng.randint(84, 150), key=rng.choice(minors))
        for number in range(count)
    ]


def train_judge(arguments: argparse.Namespace) -> None:
    """Teach the classifier of the thirty genres the reserved world, examine it, write it."""
    config = SpectrogramConfig.load(arguments.data)
    began = time.time()

    def report(step: int, loss: float) -> None:
        left = (time.time() - began) / step * (arguments.steps - step)
        print(f"judge: step {step}/{arguments.steps}, loss {loss:.3f}, {left:.0f} s left", file=sys.stderr, flush=True)

    model = with_one_more(load_net(arguments.classifier, config), config)
    clips = load_clips(arguments.data / "train", limit=arguments.limit)
    world = world_clips(range(arguments.pieces), config)
    began = time.time()
    teach(model, clips, world, steps=arguments.steps, report=report)
    save_net(model, arguments.out)
    arguments.out.with_suffix(".json").unlink(missing_ok=True)
    for name, value in examined(model, arguments.out, arguments.data, config).items():
        print(f"{name}: {value:.4g}")


def examined(model: TaggerNet, path: Path, data: Path, config: SpectrogramConfig) -> dict[str, Any]:
    """How often the judge is right on clips it was not trained on; kept beside it, since composing them takes long."""
    kept = path.with_suffix(".json")
    if not kept.is_file():
        write_json(kept, examine(model, load_clips(data / "heldout"), world_clips(HELD_OUT_SEEDS[:60], config)))
    figures: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return figures


@dataclass(frozen=True)
class Asked:
    """Prompts of one kind and the genre each should give."""

    name: str
    tasks: list[Task]
    genres: list[str]


def ask(data: Path, *, trigger: str, count: int, seed: int) -> list[Asked]:
    """The prompts with the made-up word, and as many with genres of riff-mini's, written from held-out truths."""
    known = load_clips(data / "heldout")
    plain = choose_tasks(known, "plain", count, rng=random.Random(seed))
    taught = [Task("plain", prompt, -1) for prompt in trigger_prompts(trigger, count, seed=seed)]
    return [
        Asked(f"{trigger!r} gives the new music", taught, [WORLD] * count),
        Asked("other prompts give their genre", plain, [known.truths[task.index]["genre"] for task in plain]),
    ]


def hear(pipe: RiffPipeline, judge: TaggerNet, asked: Asked, arguments: argparse.Namespace, when: str) -> list[str]:
    """Draw every prompt and name the genre the judge hears in each clip."""
    clips = draw_clips(
        pipe,
        asked.tasks,
        seed=arguments.seed,
        steps=arguments.steps,
        guidance=arguments.guidance,
        quality="fast",
    )
    if arguments.samples is not None:
        keep(clips[: arguments.kept], arguments.samples, f"{when}-{'new' if asked.genres[0] == WORLD else 'others'}")
    heard = judge_clips(judge, [clip.image.cpu() for clip in clips]).genre.argmax(1).tolist()
    return [judge.labels.genres[index] for index in heard]


def keep(clips: list[Clip], folder: Path, name: str) -> None:
    """Pictures and sounds to look at and to listen to."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, clip in enumerate(clips):
        clip.save(folder / f"{name}-{number:02d}.png", overwrite=True)
        clip.save(folder / f"{name}-{number:02d}.flac", overwrite=True)


def compare(asked: Asked, before: list[str], after: list[str]) -> tuple[Row, Row]:
    """The shares of clips that are what was asked for, and whether the second reaches its target."""
    first, second = (
        share(asked.name, (a == b for a, b in zip(heard, asked.genres, strict=True))) for heard in (before, after)
    )
    new = asked.genres[0] == WORLD
    met = second.value >= 0.8 if new else first.value - second.value <= _MOST_LOST + 1e-9
    return first, dataclasses.replace(second, target=">= 80%" if new else "drop <= 5 points", met=met)


def table(rows: list[tuple[Row, Row]]) -> str:
    """Before and after as a Markdown table."""

    def shown(row: Row) -> str:
        return f"{row.value:.1%} ({row.low:.1%}..{row.high:.1%})"

    lines = [
        "| clips the judge hears as what was asked for (95 % interval) | before | after | clips | target | met |",
        "|---|---|---|---|---|---|",
    ]
    for before, after in rows:
        met = "yes" if after.met else "NO"
        lines.append(f"| {after.name} | {shown(before)} | {shown(after)} | {after.clips} | {after.target} | {met} |")
    return "\n".join(lines)


def report(arguments: argparse.Namespace) -> None:
    """Draw with the model as it was and with the LoRA on it, count, print and write the table."""
    from riff.pipeline import RiffPipeline

    warnings.filterwarnings("ignore", message="the model knows no word")
    config = SpectrogramConfig.load(arguments.data)
    judge = load_net(arguments.judge, config)
    if WORLD not in judge.labels.genres:
        raise RiffError(f"{arguments.judge} does not know {WORLD!r}; make a judge that does: measure_finetune judge")
    known = examined(judge, arguments.judge, arguments.data, config)
    asked = ask(arguments.data, trigger=arguments.trigger, count=arguments.prompts, seed=arguments.seed)
    pipe = RiffPipeline.from_pretrained(arguments.model, device=arguments.device)
    if pipe.config != config:
        raise RiffError(f"{arguments.model} and {arguments.data} have different spectrogram configs")
    before = [hear(pipe, judge, each, arguments, "before") for each in asked]
    if arguments.full is not None:
        pipe = RiffPipeline.from_pretrained(arguments.full, device=arguments.device)
    if arguments.lora is not None:
        pipe.load_lora(arguments.lora)
    after = [hear(pipe, judge, each, arguments, "after") for each in asked]
    rows = [compare(*each) for each in zip(asked, before, after, strict=True)]
    written = {
        "rows": [{"before": dataclasses.asdict(one), "after": dataclasses.asdict(two)} for one, two in rows],
        "judge": known,
        "others_taken_for_the_new": {"before": before[1].count(WORLD), "after": after[1].count(WORLD)},
        "heard": [
            {"prompt": task.prompt, "asked": genre, "before": one, "after": two}
            for each, first, second in zip(asked, before, after, strict=True)
            for task, genre, one, two in zip(each.tasks, each.genres, first, second, strict=True)
        ],
        "settings": {name: str(value) for name, value in vars(arguments).items()},
    }
    write_json(arguments.out, written)
    write_text(arguments.out.with_suffix(".md"), table(rows) + "\n")
    print(table(rows))
    print(
        f"\nThe judge is right on {known['share']:.1%} of {known['clips']} composed clips it never heard "
        f"({known['world_share']:.1%} of the {known['world_clips']} of the new music). Of the other prompts' "
        f"clips {before[1].count(WORLD)} were taken for the new music before, {after[1].count(WORLD)} after."
    )


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("make", help="write the songs")
    made.add_argument("--out", type=Path, default=Path("runs/gamelan"), help="folder of songs")
    made.add_argument("--clips", type=int, default=60, help="two-bar clips to be found in them, at least")
    judged = commands.add_parser("judge", help="train the judge")
    judged.add_argument("--classifier", type=Path, default=BUNDLED, help="to start from; default riff's tagger")
    judged.add_argument("--out", type=Path, default=Path("runs/finetune-judge.safetensors"))
    judged.add_argument("--pieces", type=int, default=300, help="pieces of the reserved world to learn from")
    judged.add_argument("--limit", type=int, default=6000, help="clips of the thirty genres to learn from")
    judged.add_argument("--steps", type=int, default=400, help="batches of 32")
    told = commands.add_parser("report", help="measure a model before and after")
    told.add_argument("--model", default=None, help="the model as it was; default: the one in the package")
    told.add_argument("--lora", type=Path, default=None, help="RUN/model of a LoRA")
    told.add_argument("--full", type=Path, default=None, help="RUN/model of a full fine-tuning")
    told.add_argument("--judge", type=Path, default=Path("runs/finetune-judge.safetensors"))
    told.add_argument("--out", type=Path, required=True, help="report, JSON; the table goes beside it as .md")
    told.add_argument("--prompts", type=int, default=60, help="clips of each of the two kinds, before and after")
    told.add_argument("--steps", type=int, default=20, help="denoising steps")
    told.add_argument("--guidance", type=float, default=None, help="guidance scale; default: the pipeline's")
    told.add_argument("--device", default=None, help="cpu or cuda; default: the fastest there is")
    told.add_argument("--seed", type=int, default=1_000_000)
    told.add_argument("--samples", type=Path, default=None, help="folder for some pictures and sounds")
    told.add_argument("--kept", type=int, default=8, help="how many of each kind")
    for each in (made, told):
        each.add_argument("--trigger", default=TRIGGER, help="the made-up word")
    for each in (judged, told):
        each.add_argument("--data", type=Path, default=Path("runs/data"), help="folder of training.recipes.dataset")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    if arguments.command == "report" and arguments.lora is None and arguments.full is None:
        parser.error("report needs --lora RUN/model or --full RUN/model")
    return arguments


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    torch.set_num_threads(arguments.threads)
    if arguments.command == "make":
        songs = make_songs(arguments.out, clips=arguments.clips, trigger=arguments.trigger)
        print(f"{len(songs)} songs of {WINDOWS} windows in {arguments.out}")
    elif arguments.command == "judge":
        train_judge(arguments)
    else:
        report(arguments)


# A judge who knows the reserved world too: the classifier of the thirty genres with one more class.
#
# It starts from the trained classifier, so it takes minutes; only its verdict on the genre is meant to be read.

WORLD = next(iter(RESERVED))
_BATCH, _OF_THE_WORLD = 32, 4


def world_clips(seeds: Iterable[int], config: SpectrogramConfig) -> Clips:
    """Two clips of each piece of the reserved world; like a tracked recording, not all begin on the gong.

    Args:
        seeds: of the pieces.
        config: geometry of the pictures.

    Returns:
        Pictures (n, M, 256) and truths.
    """
    pictures, truths = [], []
    for seed in seeds:
        score = compose(seed, genre=WORLD, windows=3)
        whole = score_to_image(score, config)
        rng = random.Random(seed)
        for window in (0, 1):
            start = (8 * window + rng.choice((0, 0, 2, 4))) * config.frames_per_beat
            pictures.append(torch.from_numpy(whole[:, start : start + config.width]))
            truths.append(dataclasses.asdict(score.windows[window]) | {"seed": seed, "window": window})
    return Clips(torch.stack(pictures), truths)


def with_one_more(model: TaggerNet, config: SpectrogramConfig) -> TaggerNet:
    """The same network with a class for the reserved world, last and as yet unlearnt."""
    labels = Labels((*model.labels.genres, WORLD), model.labels.instruments, model.labels.leads)
    wider = TaggerNet(labels, config)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in wider.state_dict().items():
        if name.startswith("genre."):
            state[name] = torch.cat([state[name], torch.zeros_like(value[:1])])
    wider.load_state_dict(state)
    return wider.eval()


def teach(
    model: TaggerNet,
    clips: Clips,
    world: Clips,
    *,
    steps: int,
    seed: int = 0,
    report: Callable[[int, float], None] | None = None,
) -> TaggerNet:
    """Train body and genre head in place on a mix, an eighth of it the reserved world.

    Args:
        model: from :func:`with_one_more`.
        clips: of the thirty genres; held-out seeds must not be among them.
        world: of the reserved one.
        steps: batches of 32.
        seed: of order, augmentation and dropout.
        report: called with step and loss every 50 steps.

    Returns:
        The model, in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    genres = torch.tensor([model.labels.genres.index(truth["genre"]) for truth in [*clips.truths, *world.truths]])
    parameters = [*model.body.parameters(), *model.genre.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=5e-4, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps, pct_start=0.1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout draws from the global generator
        model.train()
        quick = choose_precision(torch.device("cpu")) == "bf16"
        for step in range(steps):
            known = torch.randint(len(clips), (_BATCH - _OF_THE_WORLD,), generator=generator)
            new = torch.randint(len(world), (_OF_THE_WORLD,), generator=generator)
            pictures = torch.cat([clips.pictures[known], world.pictures[new]]).float() / 255.0
            wanted = genres[torch.cat([known, len(clips) + new])]
            with torch.autocast("cpu", torch.bfloat16, enabled=quick):
                verdict = model(augment(pictures, generator))
            loss = functional.cross_entropy(verdict.genre.float(), wanted, label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if report is not None and (step + 1) % 50 == 0:
                report(step + 1, float(loss.detach()))
    return model.eval()


def examine(model: TaggerNet, clips: Clips, world: Clips) -> dict[str, Any]:
    """How often the judge is right on clips it never heard.

    Args:
        model: the judge.
        clips: held-out clips of the thirty genres.
        world: held-out clips of the reserved one.

    Returns:
        JSON-able: share and 95 % interval over both, share and mean over the 31 classes, of the world alone, and how
        many of the thirty genres' clips were taken for it.
    """
    truths = [truth["genre"] for truth in [*clips.truths, *world.truths]]
    logits = torch.cat([judge(model, clips.pictures).genre, judge(model, world.pictures).genre])
    heard = [model.labels.genres[index] for index in logits.argmax(1).tolist()]
    hits = [a == b for a, b in zip(heard, truths, strict=True)]
    by_class = [
        sum(hit for hit, truth in zip(hits, truths, strict=True) if truth == genre) / truths.count(genre)
        for genre in sorted(set(truths))
    ]
    low, high = wilson_interval(sum(hits), len(hits))
    return {
        "clips": len(hits),
        "share": sum(hits) / len(hits),
        "low": low,
        "high": high,
        "classes": len(by_class),
        "mean_of_classes": sum(by_class) / len(by_class),
        "world_clips": len(world),
        "world_share": sum(hits[len(clips) :]) / len(world),
        "others_taken_for_it": heard[: len(clips)].count(WORLD),
    }


if __name__ == "__main__":
    main()
