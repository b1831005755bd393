"""Fine-tuning from a folder of pictures to a LoRA or a checkpoint, on the tiny checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from riff import RiffPipeline
from riff.checkpoint import load_checkpoint
from riff.config import SpectrogramConfig
from riff.image import write_png
from riff.train.recipe import Recipe

pytest.importorskip("accelerate")
pytest.importorskip("peft")
pytest.importorskip("tensorboard")

from riff.train.finetune import fine_tune

WORD = "sarondeng"
POWER = {"amplitude": "power", "grid": "seconds", "hop_length": 80, "stereo": "left-right"}


def write_set(folder: Path, config: SpectrogramConfig, *, n: int = 6, heldout: int = 2, word: str = WORD) -> Path:
    generator = torch.Generator().manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    config.save(folder)
    for split, count in (("train", n), ("validation", heldout)):
        lines = []
        for number in range(count):
            beats = 3 if config.grid == "beats" and number % 3 == 2 else 4
            width = config.width * beats // 4
            image = torch.rand(config.channels, config.n_mels, width, generator=generator)
            name = f"song-{number:04d}.png"
            (folder / split).mkdir(exist_ok=True)
            write_png(folder / split / name, image, config)
            lines.append(
                {
                    "file_name": name, "text": f"{word}, piano, mellow", "bpm": 100.0 + number, "keyscale": None,
                    "captions": [f"{word}, piano, mellow", f"slow {word}"], "beats_per_bar": beats,
                    "source": f"song-{number // 2}.wav", "start_s": 0.0, "duration_s": 4.0, "max_value": None,
                }
            )  # fmt: skip
        if lines:
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / split / "metadata.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def dataset(tmp_path, mini_config) -> Path:
    return write_set(tmp_path / "set", mini_config)


def recipe(dataset: Path, checkpoint: Path, **changes) -> Recipe:
    fields = {
        "pretrained_model_name_or_path": str(checkpoint), "max_train_steps": 4, "train_batch_size": 2, "rank": 2,
        "num_class_images": 3, "checkpointing_steps": 2, "validation_steps": 100, "mixed_precision": "no",
        "learning_rate": 0.01, "lr_warmup_steps": 0,
    }  # fmt: skip
    return Recipe(str(dataset), **{**fields, **changes})


def trained(run: Path) -> dict[str, torch.Tensor]:
    return {path.name: load_file(path) for path in sorted((run / "model").glob("*.safetensors"))}


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[file][name], other[file][name]) for file in one for name in one[file]
    )


def test_a_lora_run_leaves_a_folder_that_changes_the_music_and_teaches_its_word(tmp_path, dataset, mini_checkpoint):
    outcome = fine_tune(recipe(dataset, mini_checkpoint), tmp_path / "run")
    assert {path.name for path in outcome.model.iterdir()} >= {
        "pytorch_lora_weights.safetensors",
        "learned_embeds.safetensors",
        "spectrogram_config.json",
    }
    assert outcome.figures["validation_loss_after"] != outcome.figures["validation_loss_before"]
    plain = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    tuned = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    tuned.load_lora(outcome.model)
    told = {"bpm": 120, "seed": 1, "num_inference_steps": 2}
    before, after = (pipe(f"{WORD}, piano", **told).clips[0] for pipe in (plain, tuned))
    assert list(before.settings["ignored_words"]) == [WORD]
    assert not after.settings.get("ignored_words")
    assert not torch.equal(before.waveform, after.waveform)
    assert (tmp_path / "run" / "samples" / "sample-00.wav").exists()


def test_what_is_loaded_predicts_what_was_trained(tmp_path, dataset, mini_checkpoint):
    from riff.train import outcome as outcomes

    kept = {}
    original = outcomes.Tuning.save

    def spy(self, folder):
        kept["tuning"] = self
        original(self, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcomes.Tuning, "save", spy)
        outcome = fine_tune(recipe(dataset, mini_checkpoint), tmp_path / "run")
    pipe = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    pipe.load_lora(outcome.model / "pytorch_lora_weights.safetensors")
    noisy, timesteps = torch.randn(1, 8, 4, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    with torch.no_grad():
        model = kept["tuning"].model
        ids = torch.tensor(pipe.pipeline.tokenizer([f"{WORD}, piano"], padding="max_length", max_length=24).input_ids)
        wanted = model(noisy, timesteps, ids)
        embeds = pipe.pipeline.text_encoder(ids).last_hidden_state
        found = pipe.pipeline.unet(noisy, timesteps, encoder_hidden_states=embeds).sample
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, dataset, mini_checkpoint, stop):
    asked = recipe(dataset, mini_checkpoint, max_train_steps=5)
    fine_tune(asked, tmp_path / "whole")
    assert fine_tune(asked, tmp_path / "parts", until=stop) is None
    fine_tune(asked, tmp_path / "parts")
    assert same(trained(tmp_path / "whole"), trained(tmp_path / "parts"))


def test_diffusers_alone_reads_what_was_trained(tmp_path, dataset, mini_checkpoint):
    outcome = fine_tune(recipe(dataset, mini_checkpoint), tmp_path / "run")
    parts, _, _ = load_checkpoint(mini_checkpoint)
    parts.load_lora_weights(outcome.model)
    parts.load_textual_inversion(outcome.model / "learned_embeds.safetensors")
    assert parts.tokenizer(WORD, add_special_tokens=False).input_ids == [len(parts.tokenizer) - 1]
    weights = load_file(outcome.model / "pytorch_lora_weights.safetensors")
    loaded = [name for name, _ in parts.unet.named_parameters() if "lora_" in name]
    assert len(loaded) == len(weights)
