"""Fine-tuning from a folder of pictures to a LoRA or a checkpoint, on the tiny checkpoints."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from riff import RiffError, RiffPipeline
from riff.apps.cli import main
from riff.diffusion.checkpoint import load_checkpoint
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.png import write_png
from riff.train.recipe import FineTuneConfig
from riff.utils.errors import ModelError

pytest.importorskip("accelerate")
pytest.importorskip("peft")
pytest.importorskip("tensorboard")

from riff.train import finetune as outcomes
from riff.train.finetune import fine_tune

WORD = "sarondeng"


def write_set(folder: Path, config: SpectrogramConfig, *, n: int = 5, heldout: int = 0, word: str = WORD) -> Path:
    generator = torch.Generator().manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    config.save(folder)
    for split, count in (("train", n), ("validation", heldout)):
        lines = []
        for number in range(count):
            beats = 3 if config.grid == "beats" and number % 3 == 2 else 4
            image = torch.rand(config.channels, config.n_mels, config.width * beats // 4, generator=generator)
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


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, mini_config) -> Path:
    return write_set(tmp_path_factory.mktemp("data") / "set", mini_config)


@pytest.fixture(autouse=True, scope="module")
def shared_cache_of_the_tests(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RIFF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def few_denoising_steps(monkeypatch):
    """Samples are drawn in two steps: that they are drawn is what is tested."""
    drawn = RiffPipeline.__call__
    monkeypatch.setattr(
        RiffPipeline, "__call__", lambda self, *texts, **more: drawn(self, *texts, **{"num_inference_steps": 2} | more)
    )
    monkeypatch.setattr("riff.train.preservation.STEPS", 2)


def recipe(dataset: Path, checkpoint: Path, **changes) -> FineTuneConfig:
    fields = {
        "pretrained_model_name_or_path": str(checkpoint), "max_train_steps": 3, "train_batch_size": 2, "rank": 2,
        "num_class_images": 2, "checkpointing_steps": 2, "validation_steps": 100, "mixed_precision": "no",
        "learning_rate": 0.01, "lr_warmup_steps": 0, "caption_shuffles": 1,
    }  # fmt: skip
    return FineTuneConfig.from_options(str(dataset), **{**fields, **changes})


def trained(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {path.name: load_file(path) for path in sorted((run / "model").glob("*.safetensors"))}


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[file][name], other[file][name]) for file in one for name in one[file]
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, mini_config, mini_checkpoint):
    """A LoRA run from end to end: its outcome, and the model as it was in memory at the end."""
    kept = {}
    original = outcomes.Tuning.save

    def spy(self, folder):
        kept["tuning"] = self
        original(self, folder)

    folder = tmp_path_factory.mktemp("finished")
    data = write_set(folder / "set", mini_config, n=4, heldout=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcomes.Tuning, "save", spy)
        patch.setattr("riff.train.preservation.STEPS", 2)
        outcome = fine_tune(recipe(data, mini_checkpoint, validation_prompt=(f"{WORD}, 90 bpm",)), folder / "my-run")
    return outcome, kept["tuning"]


def test_a_lora_run_changes_the_music_and_teaches_its_word(finished, mini_checkpoint):
    outcome, _ = finished
    assert {path.name for path in outcome.model.iterdir()} >= {
        "pytorch_lora_weights.safetensors",
        "learned_embeds.safetensors",
        "spectrogram_config.json",
    }
    plain = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    tuned = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    tuned.load_lora(outcome.model)
    told = {"bpm": 120, "seed": 1, "num_inference_steps": 2, "quality": "fast"}
    before, after = (pipe(f"{WORD}, piano", **told).clips[0] for pipe in (plain, tuned))
    assert list(before.settings["ignored_words"]) == [WORD]
    assert not after.settings.get("ignored_words")
    assert not torch.equal(before.waveform, after.waveform)


def test_what_is_loaded_predicts_what_was_trained(finished, mini_checkpoint):
    outcome, tuning = finished
    pipe = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    pipe.load_lora(outcome.model / "pytorch_lora_weights.safetensors")
    noisy, timesteps = torch.randn(1, 8, 4, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    ids = torch.tensor(pipe.components.tokenizer([f"{WORD}, piano"], padding="max_length", max_length=24).input_ids)
    with torch.no_grad():
        wanted = tuning.model(noisy, timesteps, ids)
        embeds = pipe.components.text_encoder(ids).last_hidden_state
        found = pipe.components.unet(noisy, timesteps, encoder_hidden_states=embeds).sample
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_diffusers_alone_reads_what_was_trained(finished, mini_checkpoint):
    outcome, _ = finished
    parts, _, _ = load_checkpoint(mini_checkpoint)
    parts.load_lora_weights(outcome.model)
    parts.load_textual_inversion(outcome.model / "learned_embeds.safetensors")
    assert parts.tokenizer(WORD, add_special_tokens=False).input_ids == [len(parts.tokenizer) - 1]
    weights = load_file(outcome.model / "pytorch_lora_weights.safetensors")
    assert len([name for name, _ in parts.unet.named_parameters() if "lora_" in name]) == len(weights)


def test_the_card_describes_the_model_and_plays_its_samples(finished):
    outcome, _ = finished
    card = (outcome.model / "README.md").read_text(encoding="utf-8")
    for told in (
        "license: other",
        f"instance_prompt: {WORD}",
        "my-run",
        "4 clips to train on, 2 held out",
        "from 2 files",
        '<audio controls src="samples/sample-00.wav">',
        "100 to 103 beats per minute",
        "validation loss after",
    ):
        assert told in card
    assert (outcome.model / "samples" / "sample-00.wav").stat().st_size > 1000
    assert outcome.figures["validation_loss_before"] != outcome.figures["validation_loss_after"]


def test_a_checkpoint_of_a_lora_run_holds_only_what_is_trained(finished):
    outcome, tuning = finished
    weights = load_file(next(outcome.model.parent.glob("step-*")) / "model.safetensors")
    assert len(weights) == len([p for p in tuning.model.parameters() if p.requires_grad])
    assert all("lora_" in name or name.endswith("offset") for name in weights)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, dataset, mini_checkpoint):
    asked = recipe(dataset, mini_checkpoint, max_train_steps=4, gradient_accumulation_steps=2, caption_dropout=0.3)
    fine_tune(asked, tmp_path / "whole")
    for stop in (1, 3):
        assert fine_tune(asked, tmp_path / "parts", until=stop) is None
    fine_tune(asked, tmp_path / "parts")
    assert same(trained(tmp_path / "whole"), trained(tmp_path / "parts"))


def test_a_full_run_leaves_a_checkpoint_that_diffusers_loads(tmp_path, dataset, mini_checkpoint):
    from diffusers import StableDiffusionPipeline

    asked = recipe(dataset, mini_checkpoint, method="full", train_text_encoder=True, with_prior_preservation=False)
    outcome = fine_tune(asked, tmp_path / "run")
    pipe = RiffPipeline.from_pretrained(outcome.model, device="cpu")
    assert pipe.prior is not None
    assert not pipe(WORD, seed=1, bpm=120).clips[0].settings.get("ignored_words")
    plain = StableDiffusionPipeline.from_pretrained(outcome.model, safety_checker=None)
    assert len(plain.tokenizer(WORD, add_special_tokens=False).input_ids) == 1
    before, _, _ = load_checkpoint(mini_checkpoint)
    old, new = before.unet.state_dict(), pipe.components.unet.state_dict()
    assert sum(not torch.equal(old[name].half(), new[name].half()) for name in old) > len(old) / 2


def test_textual_inversion_learns_one_word_and_leaves_the_rest(tmp_path, dataset, mini_checkpoint):
    outcome = fine_tune(recipe(dataset, mini_checkpoint, method="textual-inversion"), tmp_path / "run")
    assert {path.suffix for path in outcome.model.iterdir() if path.is_file()} == {".safetensors", ".json", ".md"}
    assert list(trained(tmp_path / "run")) == ["learned_embeds.safetensors"]
    pipe = RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")
    pipe.load_lora(outcome.model)
    assert not pipe(WORD, seed=1, bpm=120).clips[0].settings.get("ignored_words")


def test_riffusions_layout_is_trained_with_a_new_word_and_fresh_samples(tmp_path, riffusion_checkpoint, copy_of):
    config = SpectrogramConfig(
        sample_rate=8000, n_fft=1024, win_length=512, hop_length=80, n_mels=32, f_max=4000.0,
        amplitude="power", grid="seconds", width=64, stereo="left-right",
    )  # fmt: skip
    checkpoint = copy_of(riffusion_checkpoint)
    config.save(checkpoint)
    data = write_set(tmp_path / "set", config, n=2)
    asked = recipe(data, checkpoint, trigger="Sarondeng", max_train_steps=2)
    outcome = fine_tune(asked, tmp_path / "run")
    latents = next(
        load_file(path) for path in (tmp_path / "run" / "cache").glob("latents-*") if "logvar" in load_file(path)
    )
    assert latents["mean"].shape == latents["logvar"].shape == (2, 1, 4, 4, 8)
    weights = load_file(outcome.model / "pytorch_lora_weights.safetensors")
    assert not any("conv" in name for name in weights)
    assert list(load_file(outcome.model / "learned_embeds.safetensors")) == [WORD]


def test_frozen_prompts_are_embedded_once(tmp_path, mini_config, mini_checkpoint):
    data = write_set(tmp_path / "set", mini_config, n=2, word="jazz")
    fine_tune(recipe(data, mini_checkpoint, max_train_steps=1, with_prior_preservation=False), tmp_path / "run")
    assert list((tmp_path / "run" / "cache").glob("prompts-*"))
    assert not (tmp_path / "run" / "model" / "learned_embeds.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_batch_size": 4}, "train_batch_size 2 -> 4"),
        ({"rank": 4, "seed": 9}, "rank 2 -> 4, seed 0 -> 9"),
    ],
)
def test_a_run_that_goes_on_otherwise_is_told_every_difference(finished, mini_checkpoint, change, message):
    outcome, _ = finished
    data, prompts = outcome.model.parent.parent / "set", (f"{WORD}, 90 bpm",)
    with pytest.raises(RiffError, match=message):
        fine_tune(recipe(data, mini_checkpoint, validation_prompt=prompts, **change), outcome.model.parent)


def test_clips_of_another_config_are_refused_with_both(tmp_path, mini_config, riffusion_checkpoint):
    data = write_set(tmp_path / "set", mini_config, n=1)
    with pytest.raises(RiffError, match="n_mels 32 and 512"):
        fine_tune(recipe(data, riffusion_checkpoint), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_left_alone(tmp_path, dataset, mini_checkpoint):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RiffError, match=r"no run of riff train"):
        fine_tune(recipe(dataset, mini_checkpoint), tmp_path)


def test_a_loss_that_is_not_finite_names_the_clips(tmp_path, dataset, mini_checkpoint, monkeypatch):
    from riff.train.loss import DiffusionLoss

    monkeypatch.setattr(DiffusionLoss, "error", lambda self, *_: torch.tensor(float("nan"), requires_grad=True))
    asked = recipe(dataset, mini_checkpoint, max_train_steps=40, with_prior_preservation=False)
    with pytest.raises(ModelError, match="song-000"):
        fine_tune(asked, tmp_path / "run")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "dreams"}, "method is 'dreams'"),
        ({"rank": 0}, "rank is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"caption_dropout": 1.0}, "caption_dropout is 1.0"),
        ({"mixed_precision": "int3"}, "mixed_precision is 'int3'"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(RiffError, match=message):
        FineTuneConfig.from_options("set", **fields)


def test_two_processes_learn_what_one_learns_with_twice_the_accumulation(tmp_path, dataset, mini_checkpoint):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(dataset), "--model", str(mini_checkpoint), "--train_batch_size", "1", "--rank", "2", "--quiet"]
    words += ["--no-with_prior_preservation", "--mixed_precision", "no", "--max_train_steps", "2"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", str(port), "-m", "riff.train"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    two = [*launch, *words, "-o", str(tmp_path / "two")]
    done = subprocess.run(two, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [str(tmp_path / "two" / "model")]  # one of the two says it
    assert main(["train", *words, "-o", str(tmp_path / "one"), "--gradient_accumulation_steps", "2"]) == 0
    one, other = trained(tmp_path / "one"), trained(tmp_path / "two")
    for file, weights in one.items():
        for name, value in weights.items():
            torch.testing.assert_close(other[file][name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_real_stable_diffusion_configuration_takes_two_lora_steps_on_a_cpu(tmp_path, monkeypatch):
    """Within 20 GiB: pictures of Riffusion's size, saved after one step, resumed for the other."""
    import resource

    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel

    from riff.train import preview
    from training.recipes.checkpoint import build_tokenizer

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    )
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=build_tokenizer(["funk"]), unet=unet,
        scheduler=PNDMScheduler(beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.to(torch.float16).save_pretrained(tmp_path / "sd")
    del pipeline, unet, vae
    monkeypatch.setattr(preview.DenoiserPreview, "__call__", lambda *_: None)
    drawn = RiffPipeline.__call__
    monkeypatch.setattr(
        RiffPipeline, "__call__",
        lambda self, *texts, **more: drawn(self, *texts, **more | {"num_inference_steps": 1, "quality": "fast"}),
    )  # fmt: skip
    data = write_set(tmp_path / "set", SpectrogramConfig.riffusion(), n=1)
    asked = FineTuneConfig.from_options(
        str(data),
        str(tmp_path / "sd"),
        trigger=WORD,
        max_train_steps=2,
        rank=4,
        checkpointing_steps=1,
        lr_warmup_steps=0,
    )
    assert fine_tune(asked, tmp_path / "run", until=1) is None
    assert fine_tune(asked, tmp_path / "run").figures["steps"] == 2
    weights = load_file(tmp_path / "run" / "model" / "pytorch_lora_weights.safetensors")
    assert any(bool((weight != 0).any()) for name, weight in weights.items() if "lora_B" in name)
    checkpoint = sum(path.stat().st_size for path in (tmp_path / "run" / "step-00000002").iterdir())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.1f} GB, checkpoint {checkpoint / 2**20:.0f} MB")
    assert peak < 20
    assert checkpoint < 50 * 2**20
