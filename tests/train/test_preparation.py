"""Before the first step: clips of the model's own are few, cached and counted, and a signal loses none of them."""

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from riff.diffusion.checkpoint import load_checkpoint
from riff.diffusion.model import DiffusionModel
from riff.train import finetune, preservation
from riff.train.finetune import FEWEST_STEPS, MOST_STEPS, fine_tune
from riff.train.preservation import generate_class_clips
from riff.train.progress import LoggedProgress, read_summary
from riff.train.recipe import FineTuneConfig, SavedRecipe
from tests.train.test_finetune import recipe, same, trained, write_set

pytest.importorskip("accelerate")
pytest.importorskip("peft")
pytest.importorskip("tensorboard")

PROMPTS = ["techno", "jazz", "a waltz", "piano"]


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Two denoising steps; samples and figures are not what is tested here."""
    monkeypatch.setattr(preservation, "STEPS", 2)
    monkeypatch.setattr(finetune, "_generate_samples", lambda *_: [])
    monkeypatch.setenv("RIFF_CACHE", str(tmp_path / "shared"))


@pytest.fixture
def model(mini_checkpoint) -> DiffusionModel:
    components, config, prior = load_checkpoint(mini_checkpoint)
    return DiffusionModel(components, config, prior, "mini")


@pytest.fixture
def groups(monkeypatch) -> list[int]:
    """The sizes of the groups of clips that are really generated."""
    sizes: list[int] = []
    denoise = preservation.denoise

    def counted(predict, scheduler, noise, **options):
        sizes.append(len(noise))
        return denoise(predict, scheduler, noise, **options)

    monkeypatch.setattr(preservation, "denoise", counted)
    return sizes


def texts(found) -> list[str]:
    return [text for words, _ in found for text in words]


def test_clips_of_the_model_are_generated_once_for_all_runs(tmp_path, mini_config, mini_checkpoint, groups):
    data = write_set(tmp_path / "set", mini_config, n=2)
    for name in ("one", "two"):
        fine_tune(recipe(data, mini_checkpoint, max_train_steps=1, num_class_images=8), tmp_path / name)
    assert sum(groups) == 8
    assert list((tmp_path / "shared/class-clips").glob("class-*.safetensors"))
    assert not list((tmp_path / "one/cache").glob("class-*"))


def test_without_a_shared_cache_the_run_keeps_its_clips(tmp_path, mini_config, mini_checkpoint, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RIFF_CACHE", str(tmp_path / "file"))
    data = write_set(tmp_path / "set", mini_config, n=2)
    fine_tune(recipe(data, mini_checkpoint, max_train_steps=1), tmp_path / "run")
    assert list((tmp_path / "run/cache").glob("class-*"))


def test_more_clips_reuse_those_that_are_there(tmp_path, model, groups):
    few = generate_class_clips(model, PROMPTS, count=16, seed=0, folder=tmp_path)
    first = len(groups)
    more = generate_class_clips(model, PROMPTS, count=32, seed=0, folder=tmp_path)
    assert sum(groups[:first]) == 16
    assert sum(groups[first:]) < 32
    assert len(texts(few)) == 16 and len(texts(more)) == 32
    assert torch.equal(few[0][1].mean[:8], more[0][1].mean[:8])


def test_another_process_finds_the_same_clips(mini_checkpoint):
    code = (
        "import sys; from riff.diffusion.checkpoint import load_checkpoint; from riff.train.preservation import _key\n"
        "from riff.diffusion.model import DiffusionModel; print(_key(DiffusionModel(*load_checkpoint(sys.argv[1]), 'm')))"  # noqa: E501
    )
    keys = set()
    for seed in ("1", "2", "3"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", code, str(mini_checkpoint)]
        keys.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(keys) == 1


def test_time_limits_the_clips_and_the_count_gives_the_same_ones_again(tmp_path, model):
    limited = generate_class_clips(model, PROMPTS, count=96, seed=0, folder=tmp_path / "a", seconds=0.0)
    count = len(texts(limited))
    assert 16 <= count < 96
    again = generate_class_clips(model, PROMPTS, count=count, seed=0, folder=tmp_path / "b")
    assert texts(again) == texts(limited)
    assert all(torch.equal(one.mean, other.mean) for (_, one), (_, other) in zip(limited, again, strict=True))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_clips_are_generated_loses_none(
    tmp_path, mini_config, mini_checkpoint, monkeypatch, groups, number
):
    data = write_set(tmp_path / "set", mini_config, n=3)
    asked = recipe(data, mini_checkpoint, num_class_images=24)
    counted = preservation.denoise

    def stopping(predict, scheduler, noise, **options):
        if len(groups) == 1:
            os.kill(os.getpid(), number)
        return counted(predict, scheduler, noise, **options)

    monkeypatch.setattr(preservation, "denoise", stopping)
    assert fine_tune(asked, tmp_path / "run") is None
    made = sum(groups)
    assert 16 <= made < 24
    assert read_summary(tmp_path / "run").signal == signal.Signals(number).name
    groups.append(0)  # the next group is the third
    monkeypatch.setattr(preservation, "denoise", counted)
    assert fine_tune(asked, tmp_path / "run") is not None
    assert sum(groups) == 24
    assert fine_tune(asked, tmp_path / "whole") is not None
    assert same(trained(tmp_path / "run"), trained(tmp_path / "whole"))


def test_a_signal_while_latents_are_encoded_stops_between_shards(tmp_path, mini_config, mini_checkpoint, monkeypatch):
    from riff.train import cache

    data = write_set(tmp_path / "set", mini_config, n=5)
    distribution = cache._distribution

    def stopping(vae, images):
        os.kill(os.getpid(), signal.SIGTERM)
        return distribution(vae, images)

    monkeypatch.setattr(cache, "SHARD", 2)
    monkeypatch.setattr(cache, "_distribution", stopping)
    assert fine_tune(recipe(data, mini_checkpoint), tmp_path / "run") is None
    assert len(list((tmp_path / "run/cache").glob("latents-*"))) == 1
    assert SavedRecipe.load(tmp_path / "run") is None  # the same command begins, with the cache


def test_the_time_budget_counts_the_preparation(tmp_path, mini_config, mini_checkpoint, monkeypatch):
    data = write_set(tmp_path / "set", mini_config, n=2)
    asked = dataclasses.replace(recipe(data, mini_checkpoint, max_train_steps=None), time_budget=5.0)
    seen = {}
    timed = finetune._with_steps

    def late(recipe, setup, device, spent):
        seen["none left"] = timed(recipe, setup, device, 300.0).loop.steps
        seen["all left"] = timed(recipe, setup, device, 0.0).loop.steps
        seen["spent"] = spent
        return recipe.with_loop(steps=1)

    monkeypatch.setattr(finetune, "_with_steps", late)
    began = time.time()
    fine_tune(asked, tmp_path / "run")
    assert seen["none left"] == FEWEST_STEPS
    assert FEWEST_STEPS < seen["all left"] <= MOST_STEPS
    assert 0.0 < seen["spent"] < time.time() - began


def test_a_run_records_how_many_clips_its_time_allowed(tmp_path, mini_config, mini_checkpoint, monkeypatch):
    monkeypatch.setattr("riff.train.setup.CLASS_CLIPS", 20)
    data = write_set(tmp_path / "set", mini_config, n=2)
    asked = recipe(data, mini_checkpoint, num_class_images=None, max_train_steps=1)
    fine_tune(asked, tmp_path / "run")
    saved = SavedRecipe.expect(tmp_path / "run")
    assert (saved.requested.num_class_images, saved.resolved.num_class_images) == (None, 20)


def test_without_a_terminal_progress_is_a_line_now_and_then(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("riff.train.progress.time.monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), LoggedProgress(100, "step", "training") as progress:
        for _ in range(100):
            now[0] += 2.0
            progress.update(note="loss 0.5")
    lines = [record.message for record in caplog.records]
    assert lines[0] == "training: 1 of 100 steps, 3 min left, loss 0.5"
    assert lines[-1] == "training: 100 of 100 steps, 200 s, loss 0.5"
    assert 5 <= len(lines) <= 9


def test_every_stage_of_a_run_says_how_far_it_is(tmp_path, mini_config, mini_checkpoint, caplog):
    data = write_set(tmp_path / "set", mini_config, n=2)
    with caplog.at_level(logging.INFO):
        fine_tune(recipe(data, mini_checkpoint), tmp_path / "run")
    said = "\n".join(record.message for record in caplog.records)
    for stage in ("latents of 64 columns: ", "clips of the model as it is: ", "training: 1 of 3 steps"):
        assert stage in said


def test_options_survive_the_way_to_the_file_and_back(tmp_path):
    asked = FineTuneConfig.from_options("set", max_train_steps=5, use_ema=False, validation_prompt=["a"], seed=3)
    SavedRecipe(asked, asked.with_loop(learning_rate=0.1), "data").save(tmp_path)
    found = SavedRecipe.expect(tmp_path)
    assert found.requested == asked
    assert (asked.loop.steps, asked.loop.ema_decay, found.resolved.loop.learning_rate) == (5, 0.0, 0.1)


def test_a_cache_folder_alone_is_a_run_that_has_not_begun(tmp_path: Path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "summary.json").write_text("{}")
    assert SavedRecipe.load(tmp_path) is None
