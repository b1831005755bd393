"""The card of a fine-tuned model: what it was made of and how, what was measured, and how it sounds."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

import riff
from riff.train.recipe import Data, FineTuneConfig, prompts_of
from riff.utils.errors import RiffError, SystemProblem

TAGS = ("text-to-audio", "text-to-music", "stable-diffusion", "diffusers", "diffusers-training", "riff")
# Of the recipe, what someone who would do it again needs to know.
TOLD = (
    "method", "trigger", "rank", "lora_targets", "train_text_encoder", "max_train_steps", "train_batch_size",
    "gradient_accumulation_steps", "learning_rate", "lr_scheduler", "lr_warmup_steps", "snr_gamma", "ema_decay",
    "mixed_precision", "caption_dropout", "caption_shuffles", "augment_gain", "augment_pitch", "augment_shift",
    "with_prior_preservation", "num_class_images", "prior_loss_weight", "seed",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of the clips and of the result.

    Attributes:
        clips: trained on.
        heldout: held out.
        sources: files that they come from, None where that is unknown.
        hours: of music, None where that is unknown.
        tempi: slowest and fastest, None where none is known.
        keys: the commonest, with how many clips have them.
        trained: numbers that were trained.
        word: taught as a new token, or None.
    """

    clips: int
    heldout: int
    sources: int | None
    hours: float | None
    tempi: tuple[float, float] | None
    keys: list[tuple[str, int]]
    trained: int
    word: str | None

    @classmethod
    def of(cls, data: Data, trained: int, word: str | None) -> "Facts":
        """Facts of a data set."""
        clips = [clip for each in data.train for clip in each.clips]
        sources = {clip["source"] for clip in clips if clip.get("source")}
        lengths = [float(clip["duration_s"]) for clip in clips if clip.get("duration_s")]
        tempi = [float(clip["bpm"]) for clip in clips if clip.get("bpm")]
        keys = Counter(str(clip["keyscale"]) for clip in clips if clip.get("keyscale"))
        return cls(
            len(clips),
            sum(len(each) for each in data.validation),
            len(sources) or None,
            sum(lengths) / 3600 if len(lengths) == len(clips) else None,
            (min(tempi), max(tempi)) if tempi else None,
            keys.most_common(5),
            trained,
            word,
        )


def make_card(name: str, recipe: FineTuneConfig, facts: Facts, figures: dict[str, Any], samples: list[Path]) -> str:
    """The README.md of a model folder, with the header that the Hugging Face Hub reads.

    Args:
        name: of the model.
        recipe: settled.
        facts: of clips and result.
        figures: what was measured.
        samples: files whose copies lie in ``samples/`` beside the card.
    """
    sounds = [path.name for path in samples if path.suffix == ".wav"]
    parts = [
        f"---\n{_header(name, recipe, sounds)}---\n\n# {name}\n",
        _what(recipe, facts),
        _use(recipe),
        "## Samples\n\n" + "\n".join(_player(*each) for each in zip(prompts_of(recipe), sounds, strict=False)),
        "## Music\n\n" + _music(facts),
        "## Recipe\n\n| setting | value |\n|---|---|\n"
        + "".join(f"| `{each}` | {getattr(recipe, each)} |\n" for each in TOLD),
        "## Figures\n\n" + _figures(figures),
        f"Made with riff {riff.__version__} (`riff train`).\n",
    ]
    return "\n".join(parts)


def _header(name: str, recipe: FineTuneConfig, sounds: list[str]) -> str:
    base = recipe.pretrained_model_name_or_path
    fields: dict[str, Any] = {
        "license": recipe.license,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-audio",
        "tags": [*TAGS, *(["lora"] if recipe.method == "lora" else [])],
    }
    if base.count("/") == 1 and not Path(base).exists():  # a hub id, which the Hub links to
        fields |= {"base_model": base, "base_model_relation": "finetune" if recipe.method == "full" else "adapter"}
    if recipe.trigger is not None:
        fields["instance_prompt"] = recipe.trigger
    widget = [
        {"text": prompt, "output": {"url": f"samples/{sound}"}}
        for prompt, sound in zip(prompts_of(recipe), sounds, strict=False)
    ]
    return str(yaml.safe_dump(fields | {"widget": widget}, sort_keys=False, allow_unicode=True))


def _what(recipe: FineTuneConfig, facts: Facts) -> str:
    kinds = {
        "lora": "A LoRA for",
        "full": "A fine-tuned copy of",
        "textual-inversion": "A word learned by textual inversion for",
    }
    text = f"{kinds[recipe.method]} `{_base_name(recipe)}`, trained on {facts.clips} clips of music."
    if recipe.trigger is not None:
        text += f" The word `{recipe.trigger}` in a prompt asks for that music."
    return text + "\n"


def _base_name(recipe: FineTuneConfig) -> str:
    base = recipe.pretrained_model_name_or_path
    return Path(base).name if Path(base).exists() else base


def _use(recipe: FineTuneConfig) -> str:
    prompt = prompts_of(recipe)[0]
    base = _base_name(recipe)
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


def _player(prompt: str, sound: str) -> str:
    return f'"{prompt}"\n\n<audio controls src="samples/{sound}"></audio>\n'


def _music(facts: Facts) -> str:
    lines = [f"- {facts.clips} clips to train on, {facts.heldout} held out"]
    if facts.sources is not None:
        lines.append(f"- from {facts.sources} files")
    if facts.hours is not None:
        lines.append(f"- {facts.hours * 60:.1f} minutes in all")
    if facts.tempi is not None:
        lines.append(f"- {facts.tempi[0]:.0f} to {facts.tempi[1]:.0f} beats per minute")
    if facts.keys:
        lines.append("- keys: " + ", ".join(f"{key} ({count})" for key, count in facts.keys))
    return "\n".join(lines) + "\n"


def _figures(figures: dict[str, Any]) -> str:
    def shown(value: Any) -> str:
        return "none" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

    rows = {
        "validation loss before": figures["validation_loss_before"],
        "validation loss after": figures["validation_loss_after"],
        "steps": figures["steps"],
        "trained numbers": figures["trained_parameters"],
        "seconds of the last call": figures["seconds"],
    }
    table = "| what | value |\n|---|---|\n" + "".join(f"| {name} | {shown(value)} |\n" for name, value in rows.items())
    return table + (f"\n{figures['advice']}\n" if figures.get("advice") else "")


# WAS riff/train/share.py: Sharing a finished model on the Hugging Face Hub.


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
