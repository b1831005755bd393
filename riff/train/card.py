"""The card of a fine-tuned model: what it was made of and how, what was measured, how it sounds; and sharing it."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import riff
from riff.train.recipe import FineTuneConfig, TrainingData
from riff.utils.errors import RiffError, SystemProblem

TAGS = ("text-to-audio", "text-to-music", "stable-diffusion", "diffusers", "diffusers-training", "riff")
# Options that are needed to repeat the run.
SHOWN = (
    "method", "trigger", "rank", "lora_targets", "train_text_encoder", "max_train_steps", "train_batch_size",
    "gradient_accumulation_steps", "learning_rate", "lr_scheduler", "lr_warmup_steps", "snr_gamma", "ema_decay",
    "mixed_precision", "caption_dropout", "caption_shuffles", "augment_gain", "augment_pitch", "augment_shift",
    "with_prior_preservation", "num_class_images", "prior_loss_weight", "seed",
)  # fmt: skip
KINDS = {
    "lora": "A LoRA for",
    "full": "A fine-tuned copy of",
    "textual-inversion": "A word learned by textual inversion for",
}


@dataclasses.dataclass(frozen=True)
class ModelFacts:
    """What is known of the clips and of the result.

    Attributes:
        clips: trained on.
        heldout: held out.
        music: lines on the files, the hours, the tempi and the keys, as far as they are known.
        trained: numbers that were trained.
    """

    clips: int
    heldout: int
    music: list[str]
    trained: int

    @classmethod
    def of(cls, data: TrainingData, trained: int) -> "ModelFacts":
        """Facts of a data set."""
        clips = [clip for each in data.train for clip in each.clips]
        heldout = sum(len(each) for each in data.validation)
        music = [f"{len(clips)} clips to train on, {heldout} held out"]
        if sources := {clip["source"] for clip in clips if clip.get("source")}:
            music.append(f"from {len(sources)} files")
        lengths = [float(clip["duration_s"]) for clip in clips if clip.get("duration_s")]
        if len(lengths) == len(clips):
            music.append(f"{sum(lengths) / 60:.1f} minutes in all")
        if tempi := [float(clip["bpm"]) for clip in clips if clip.get("bpm")]:
            music.append(f"{min(tempi):.0f} to {max(tempi):.0f} beats per minute")
        if keys := Counter(str(clip["keyscale"]) for clip in clips if clip.get("keyscale")):
            music.append("keys: " + ", ".join(f"{key} ({count})" for key, count in keys.most_common(5)))
        return cls(len(clips), heldout, music, trained)


def make_card(
    name: str, recipe: FineTuneConfig, facts: ModelFacts, figures: dict[str, Any], samples: list[Path]
) -> str:
    """The README.md of a model folder, with the header that the Hugging Face Hub reads.

    Args:
        name: of the model.
        recipe: resolved.
        facts: of clips and result.
        figures: what was measured.
        samples: files of which copies are in ``samples/`` beside the card.
    """
    sounds = [path.name for path in samples if path.suffix == ".wav"]
    players = [
        f'"{prompt}"\n\n<audio controls src="samples/{sound}"></audio>\n'
        for prompt, sound in zip(recipe.prompts, sounds, strict=False)
    ]
    options = recipe.to_options()
    word = f" The word `{recipe.trigger}` in a prompt stands for that music." if recipe.trigger is not None else ""
    sections = [
        f"---\n{_header(recipe, sounds)}\n---\n\n# {name}\n",
        f"{KINDS[recipe.method]} `{_base_name(recipe)}`, trained on {facts.clips} clips of music.{word}\n",
        _use(recipe),
        "## Samples\n\n" + "\n".join(players),
        "## Music\n\n" + "".join(f"- {line}\n" for line in facts.music),
        "## Recipe\n\n" + _table("setting", {f"`{each}`": options[each] for each in SHOWN}),
        "## Figures\n\n" + _figures(figures),
        f"Made with riff {riff.__version__} (`riff train`).\n",
    ]
    return "\n".join(sections)


def _header(recipe: FineTuneConfig, sounds: list[str]) -> str:
    from huggingface_hub import ModelCardData

    base = recipe.pretrained_model_name_or_path
    fields: dict[str, Any] = {"instance_prompt": recipe.trigger} if recipe.trigger is not None else {}
    if base.count("/") == 1 and not Path(base).exists():  # a hub id, which the Hub links to
        fields |= {"base_model": base, "base_model_relation": "finetune" if recipe.method == "full" else "adapter"}
    pairs = zip(recipe.prompts, sounds, strict=False)
    return ModelCardData(
        license=recipe.license,
        library_name="diffusers",
        pipeline_tag="text-to-audio",
        tags=[*TAGS, *(["lora"] if recipe.method == "lora" else [])],
        widget=[{"text": prompt, "output": {"url": f"samples/{sound}"}} for prompt, sound in pairs],
        **fields,
    ).to_yaml()


def _base_name(recipe: FineTuneConfig) -> str:
    base = recipe.pretrained_model_name_or_path
    return Path(base).name if Path(base).exists() else base


def _use(recipe: FineTuneConfig) -> str:
    prompt, base = recipe.prompts[0], _base_name(recipe)
    if recipe.method == "full":
        command = f'riff render "{prompt}" --model FOLDER -o new.wav'
        load = 'pipe = RiffPipeline.from_pretrained("FOLDER")'
    else:
        command = f'riff render "{prompt}" --model {base} --lora FOLDER -o new.wav'
        load = f'pipe = RiffPipeline.from_pretrained("{base}")\npipe.load_lora("FOLDER")'
    return (
        f"## Use\n\nWith this folder as FOLDER:\n\n```\n{command}\n```\n\n```python\nfrom riff import RiffPipeline\n\n"
        f'{load}\npipe("{prompt}", seed=1).clips[0].save("new.wav")\n```\n'
    )


def _figures(figures: dict[str, Any]) -> str:
    rows = {
        "validation loss before": figures["validation_loss_before"],
        "validation loss after": figures["validation_loss_after"],
        "steps": figures["steps"],
        "trained numbers": figures["trained_parameters"],
        "seconds of the last call": figures["seconds"],
    }
    shown = {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in rows.items()}
    return _table("what", shown) + (f"\n{figures['advice']}\n" if figures.get("advice") else "")


def _table(head: str, rows: dict[str, Any]) -> str:
    return f"| {head} | value |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows.items())


def check_token() -> None:
    """Refuse before hours of training what would fail after them.

    Raises:
        RiffError: nobody is logged in to the Hub.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise RiffError("--push_to_hub needs a login at the Hugging Face Hub; run: hf auth login")


def push(folder: Path, repo_id: str) -> str:
    """Upload a model folder, whole, and return its address.

    Args:
        folder: a finished run's ``model``.
        repo_id: where to, "name" or "owner/name"; made where it is missing.

    Raises:
        SystemProblem: the Hub cannot be reached or refuses. The folder stays as it is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        name = api.create_repo(repo_id, exist_ok=True).repo_id
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="riff train"))
    except HFValidationError as error:
        raise RiffError(f"--hub_model_id {repo_id!r} is no name for the Hub ({error}); use owner/name") from error
    except (HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())
        raise SystemProblem(
            f"the Hub did not take {folder} ({reason}); upload it: hf upload {repo_id} {folder}"
        ) from error
