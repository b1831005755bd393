"""Any value in a checkpoint's configs gives a model that runs, or one line and exit code 4; and nothing is read elsewhere."""  # noqa: E501

import itertools
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from riff import RiffPipeline
from riff.diffusion.model import DenoiseOptions
from riff.utils.errors import ModelError

CONFIGS = (
    "unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json", "model_index.json",
)  # fmt: skip
ODD = (0, "x", -1, None, 2**40, [], 1.5, {}, True, [-1, "x"])


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def connect(self, address):
        raise AssertionError(f"connected to {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)


def outcome(folder: Path) -> str:
    """ "runs", or the one line of a ModelError."""
    try:
        pipe = RiffPipeline.from_pretrained(folder, device="cpu")
        model, reading = pipe.model, pipe.model.interpret("jazz piano")
        layout = model.layout(model.config.width)
        conditions = model.conditions([[reading]], [3.0], ["drums"])
        model.sample_images(model.noise(layout, 1), layout, conditions, [1], DenoiseOptions(2))
    except ModelError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
        return str(error)
    return "runs"


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a config, lists' first elements included."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*place, name)
            yield from places(inner, (*place, name))
    elif isinstance(value, list) and value:
        yield (*place, 0)


def with_value(path: Path, place: tuple[Any, ...], value: Any) -> None:
    config = json.loads(path.read_text())
    inner = config
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("which", "name"),
    [*(("mini_checkpoint", name) for name in CONFIGS), ("riffusion_checkpoint", "scheduler/scheduler_config.json")],
)
def test_an_odd_value_in_any_field_is_one_line_or_harmless(which, name, request, copy_of):
    """Each field has one odd value here, in turn; all of them were tried once by hand."""
    folder = copy_of(request.getfixturevalue(which))
    intact = (folder / name).read_text()
    for place, value in zip(list(places(json.loads(intact))), itertools.cycle(ODD), strict=False):
        with_value(folder / name, place, value)
        outcome(folder)
        (folder / name).write_text(intact)


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("vae/config.json", "norm_num_groups", 0, "vae cannot be loaded"),
        ("unet/config.json", "norm_num_groups", 0, "unet cannot be loaded"),
        ("unet/config.json", "layers_per_block", 2**40, "but the weights hold"),
        ("unet/config.json", "attention_head_dim", 0, "cannot be loaded"),
        ("unet/config.json", "block_out_channels", [2**16, 2**16], "its weights hold"),
        ("unet/config.json", "quantization_config", {"quant_method": "x"}, "is quantized"),
        ("text_encoder/config.json", "num_hidden_layers", 10**9, "but the weights hold"),
        ("text_encoder/config.json", "num_attention_heads", 0, "text_encoder cannot be loaded"),
        ("text_encoder/config.json", "vocab_size", 10**8, "its weights hold"),
        ("scheduler/scheduler_config.json", "num_train_timesteps", -1, "num_train_timesteps is -1"),
        ("scheduler/scheduler_config.json", "num_train_timesteps", 10**9, "num_train_timesteps is 1000000000"),
        ("scheduler/scheduler_config.json", "prediction_type", "x", "cannot be loaded"),
        ("scheduler/scheduler_config.json", "timestep_spacing", "x", "cannot be loaded"),
        ("scheduler/scheduler_config.json", "trained_betas", [0.1], "cannot be loaded"),
        ("tokenizer/tokenizer_config.json", "model_max_length", "x", "model_max_length is 'x'"),
        ("tokenizer/tokenizer_config.json", "model_max_length", 0, "model_max_length is 0"),
        ("tokenizer/tokenizer_config.json", "model_max_length", True, "model_max_length is True"),
        ("tokenizer/tokenizer_config.json", "vocab", "/etc/passwd", "does not read"),
    ],
)
def test_a_bad_value_is_named_in_one_line(mini_checkpoint, copy_of, name, field, value, message):
    folder = copy_of(mini_checkpoint)
    with_value(folder / name, (field,), value)
    assert message in outcome(folder)


def test_a_pipe_in_place_of_a_file_is_refused_without_waiting(mini_checkpoint, copy_of):
    for name in (*CONFIGS, "unet/diffusion_pytorch_model.safetensors", "tokenizer/merges.txt"):
        folder = copy_of(mini_checkpoint)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        assert "is a pipe or device" in outcome(folder)
        shutil.rmtree(folder)


def test_a_config_of_gigabytes_is_refused_unread(mini_checkpoint, copy_of):
    folder = copy_of(mini_checkpoint)
    with (folder / "unet" / "config.json").open("wb") as file:
        file.truncate(10 << 30)  # sparse
    assert "has more than 64 MB" in outcome(folder)


def test_an_adapter_in_a_component_is_refused(mini_checkpoint, copy_of):
    folder = copy_of(mini_checkpoint)
    (folder / "text_encoder" / "adapter_config.json").write_text('{"base_model_name_or_path": "../elsewhere"}')
    assert "holds a peft adapter" in outcome(folder)


def test_an_index_beside_a_whole_file_may_not_name_files_elsewhere(mini_checkpoint, copy_of):
    folder = copy_of(mini_checkpoint)
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"conv_in.bias": "../vae/diffusion_pytorch_model.safetensors"}}))
    assert "must be a .safetensors file beside it" in outcome(folder)


def test_a_tokenizer_never_comes_from_where_its_config_points(mini_checkpoint, copy_of, tmp_path):
    folder = copy_of(mini_checkpoint)
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text("this is not read")
    config = folder / "tokenizer" / "tokenizer_config.json"
    for name in ("tokenizer_file", "vocab_file", "merges_file", "special_tokens_map_file", "added_tokens_file"):
        with_value(config, (name,), str(elsewhere))
    assert outcome(folder) == "runs"


def test_loading_uses_no_global_random_numbers(mini_checkpoint):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    outcome(mini_checkpoint)
    assert torch.equal(torch.get_rng_state(), before)
