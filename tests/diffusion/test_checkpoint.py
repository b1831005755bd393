"""Loading, saving, refusing and converting checkpoints."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_autoencoder, with_legacy_weights, with_safety_checker
from safetensors.torch import load_file, save_file

import riff.diffusion.hub
from riff.diffusion.checkpoint import convert_checkpoint, load_checkpoint, save_checkpoint
from riff.diffusion.components import quiet_libraries
from riff.diffusion.hub import WEIGHTS
from riff.prompt.prior import MusicPrior
from riff.spectrogram.config import SpectrogramConfig
from riff.utils.errors import ModelError, RiffError

UNET = "unet/diffusion_pytorch_model.safetensors"


def rewrite(path: Path, change) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def rewrite_json(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def one_line(caught: pytest.ExceptionInfo) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 4
    return message


def test_a_saved_checkpoint_loads_with_the_same_weights_config_and_prior(mini_checkpoint, mini_config, tmp_path):
    pipeline, config, prior = load_checkpoint(mini_checkpoint)
    assert config == mini_config
    again, config_again, prior_again = load_checkpoint(
        save_checkpoint(pipeline, config, tmp_path / "again", prior=prior)
    )
    assert config_again == config
    torch.testing.assert_close(prior_again.weight, prior.weight)
    for part in ("unet", "vae", "text_encoder"):
        expected = getattr(pipeline, part).state_dict()
        torch.testing.assert_close(getattr(again, part).state_dict(), expected, rtol=0, atol=0)
    assert not again.unet.training
    assert again.scheduler.config.prediction_type == "v_prediction"


def test_a_checkpoint_is_a_plain_diffusers_folder_of_safetensors(mini_checkpoint):
    from diffusers import DiffusionPipeline, StableDiffusionPipeline

    assert isinstance(DiffusionPipeline.from_pretrained(mini_checkpoint), StableDiffusionPipeline)
    names = {str(path.relative_to(mini_checkpoint)) for path in mini_checkpoint.rglob("*") if path.is_file()}
    assert {"spectrogram_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt", UNET} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".ckpt"))]


def test_a_checkpoint_without_a_config_is_riffusions_and_has_no_prior(riffusion_checkpoint):
    pipeline, config, prior = load_checkpoint(riffusion_checkpoint)
    assert config == SpectrogramConfig.riffusion()
    assert prior is None
    assert type(pipeline.scheduler).__name__ == "PNDMScheduler"


def test_safety_checker_and_feature_extractor_are_never_opened(riffusion_checkpoint, copy_of):
    pipeline, _, _ = load_checkpoint(with_safety_checker(copy_of(riffusion_checkpoint)))
    assert pipeline.safety_checker is None
    assert pipeline.feature_extractor is None


def test_half_precision_files_load_in_the_dtype_asked_for(mini_checkpoint, mini_config, tmp_path):
    pipeline, config, prior = load_checkpoint(mini_checkpoint, dtype=torch.float16)
    assert pipeline.unet.dtype == pipeline.text_encoder.dtype == torch.float16
    folder = save_checkpoint(pipeline, config, tmp_path / "half", prior=prior)
    assert next(iter(load_file(folder / UNET).values())).dtype == torch.float16
    assert load_checkpoint(folder)[0].unet.dtype == torch.float32


def test_an_fp16_variant_is_found_by_name_or_if_alone(mini_checkpoint, copy_of):
    folder = copy_of(mini_checkpoint)
    for part, stem in WEIGHTS.items():
        (folder / part / f"{stem}.safetensors").rename(folder / part / f"{stem}.fp16.safetensors")
    for variant in (None, "fp16"):
        assert load_checkpoint(folder, variant=variant)[0].unet.dtype == torch.float32
    with pytest.raises(ModelError, match=r"has no diffusion_pytorch_model\.int8\.safetensors"):
        load_checkpoint(folder, variant="int8")


def test_a_checkpoint_may_have_a_tiny_autoencoder(mini_checkpoint, mini_config, tmp_path):
    pipeline, _, prior = load_checkpoint(mini_checkpoint)
    pipeline.vae = tiny_autoencoder(picture_channels=1, latent_channels=8)
    again = load_checkpoint(save_checkpoint(pipeline, mini_config, tmp_path / "tiny", prior=prior))[0]
    assert type(again.vae).__name__ == "AutoencoderTiny"
    torch.testing.assert_close(again.vae.state_dict(), pipeline.vae.state_dict())


@pytest.mark.parametrize("dropped", ["tokenizer.json", "vocab.json"])
def test_either_form_of_the_tokenizer_is_enough(mini_checkpoint, copy_of, dropped):
    folder = copy_of(mini_checkpoint)
    (folder / "tokenizer" / dropped).unlink()
    tokenizer = load_checkpoint(folder)[0].tokenizer
    assert len(tokenizer("techno piano", add_special_tokens=False).input_ids) == 2


def cut(name: str, size: int):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def write(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


def remove(name: str):
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def weights(change):
    return lambda folder: rewrite(folder / UNET, change)


def fields(name: str, **changes):
    return lambda folder: rewrite_json(folder / name, **changes)


def another_prior(folder: Path) -> None:
    save_file({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, folder / "music_prior.safetensors")


PICTURE = "spectrogram_config.json"
DAMAGE = {
    "truncated": (cut(UNET, -10), "truncated or corrupt"),
    "header only": (cut(UNET, 100), "truncated or corrupt"),
    "empty": (cut(UNET, 0), "is empty"),
    "huge header": (write(UNET, b"\xff" * 64), "truncated or corrupt"),
    "git-lfs": (write(UNET, b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "no weights": (remove(UNET), "incomplete"),
    "no unet": (remove("unet"), r"unet/config\.json is missing"),
    "no scheduler": (remove("scheduler"), r"scheduler_config\.json is missing"),
    "no tokenizer": (remove("tokenizer"), r"neither tokenizer\.json nor vocab\.json"),
    "bad tokenizer": (write("tokenizer/tokenizer.json", b"{}"), "tokenizer cannot be loaded"),
    "no index": (remove("model_index.json"), r"no model_index\.json"),
    "bad index": (write("model_index.json", b"{"), "not valid JSON"),
    "index is a list": (write("model_index.json", b"[]"), "not a JSON object"),
    "bad config": (write("vae/config.json", b"{"), "not valid JSON"),
    "deep config": (write("vae/config.json", b"[" * 100_000), "not valid JSON"),
    "bad picture": (write(PICTURE, b'{"n_mels": -1}'), "n_mels is -1"),
    "binary picture": (write(PICTURE, b"\xff\xfe"), "spectrogram_config"),
    "odd picture": (fields(PICTURE, n_mels=36), "images of 36 rows are no multiple of 8"),
    "stereo picture": (fields(PICTURE, channels=2), "the vae has 1 channels"),
    "bad prior": (write("music_prior.safetensors", b"x" * 20), "is damaged"),
    "another prior": (another_prior, "music prior reads another embedding"),
    "nan": (weights(lambda t: t["conv_in.bias"].fill_(torch.nan)), r"conv_in\.bias holds NaN"),
    "inf": (weights(lambda t: t["conv_in.bias"].fill_(torch.inf)), r"conv_in\.bias holds NaN"),
    "missing": (weights(lambda t: t.pop("conv_in.bias")), r"1 weight.* missing, e\.g\. conv_in\.bias"),
    "mismatched": (weights(lambda t: t.update({"conv_in.bias": torch.zeros(3)})), r"conv_in\.bias"),
    "another unet": (fields("unet/config.json", in_channels=7), r"conv_in\.weight"),
    "sdxl": (
        fields("model_index.json", text_encoder=["transformers", "CLIPModel"]),
        "text_encoder is CLIPModel",
    ),
    "custom class": (fields("model_index.json", unet=["evil", "Module"]), "its unet is Module"),
    "bad scheduler": (fields("model_index.json", scheduler=["diffusers", "Nope"]), "no scheduler 'Nope'"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint_is_refused_in_one_line_that_names_the_place(case, mini_checkpoint, copy_of):
    damage, message = DAMAGE[case]
    folder = copy_of(mini_checkpoint)
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_checkpoint(folder)
    assert folder.name in one_line(caught)


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/passwd", "part.bin", "sub/part.safetensors"])
def test_shards_outside_the_folder_or_of_another_kind_are_refused(name, mini_checkpoint, copy_of):
    folder = copy_of(mini_checkpoint)
    (folder / UNET).unlink()
    index = {"weight_map": {"conv_in.bias": name}}
    (folder / f"{UNET}.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"must be a \.safetensors file beside it"):
        load_checkpoint(folder)


def test_a_sharded_checkpoint_loads(mini_checkpoint, tmp_path):
    pipeline, _, _ = load_checkpoint(mini_checkpoint)
    pipeline.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert (tmp_path / "shards" / f"{UNET}.index.json").exists()
    again = load_checkpoint(tmp_path / "shards")[0]
    torch.testing.assert_close(again.unet.state_dict(), pipeline.unet.state_dict())


def test_code_in_a_checkpoint_never_runs(mini_checkpoint, copy_of, tmp_path):
    folder, canary = copy_of(mini_checkpoint), tmp_path / "canary"
    for part in ("unet", "vae", "text_encoder", "tokenizer"):
        (folder / part / "evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Evil: pass\n")
        for name in ("config.json", "tokenizer_config.json"):
            if (folder / part / name).exists():
                rewrite_json(folder / part / name, auto_map={"AutoModel": "evil.Evil", "AutoTokenizer": "evil.Evil"})
    (folder / "pipeline.py").write_text(f"open({str(canary)!r}, 'w')\n")
    load_checkpoint(folder)
    assert not canary.exists()


class Pickled:
    """What a malicious .bin holds: unpickling it writes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


def test_a_bin_only_checkpoint_is_refused_with_the_command_that_converts_it(riffusion_checkpoint, copy_of):
    folder = with_legacy_weights(copy_of(riffusion_checkpoint))
    with pytest.raises(ModelError, match=rf"riff convert {folder} -o DIR") as caught:
        load_checkpoint(folder)
    assert "hide code" in one_line(caught)


def test_a_bin_is_not_opened_even_to_refuse_it(riffusion_checkpoint, copy_of, tmp_path):
    folder, canary = with_legacy_weights(copy_of(riffusion_checkpoint)), tmp_path / "canary"
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Pickled(canary), protocol=2))
    with pytest.raises(ModelError, match="riff convert"):
        load_checkpoint(folder)
    with pytest.raises(ModelError, match="holds more than tensors"):
        convert_checkpoint(folder, tmp_path / "out")
    assert not canary.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("checker", [False, True])
def test_a_converted_checkpoint_equals_the_original(riffusion_checkpoint, copy_of, tmp_path, checker):
    legacy = with_legacy_weights(copy_of(riffusion_checkpoint))
    if checker:
        with_safety_checker(legacy)
    folder = convert_checkpoint(legacy, tmp_path / "converted")
    assert not list(folder.rglob("*.bin"))
    assert SpectrogramConfig.load(folder) == SpectrogramConfig.riffusion()
    assert (folder / "spectrogram_config.json").exists()
    original, converted = load_checkpoint(riffusion_checkpoint)[0], load_checkpoint(folder)[0]
    for part in ("unet", "vae", "text_encoder"):
        expected = getattr(original, part).state_dict()
        torch.testing.assert_close(getattr(converted, part).state_dict(), expected, rtol=0, atol=0)


def test_a_failed_conversion_leaves_nothing_behind(riffusion_checkpoint, copy_of, tmp_path):
    legacy = with_legacy_weights(copy_of(riffusion_checkpoint))
    weights = legacy / "vae" / "diffusion_pytorch_model.bin"
    tensors = torch.load(weights, weights_only=True)
    tensors["decoder.conv_in.bias"].fill_(torch.nan)
    torch.save(tensors, weights)
    (tmp_path / "place").mkdir()
    with pytest.raises(ModelError, match="holds NaN"):
        convert_checkpoint(legacy, tmp_path / "place" / "converted")
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps([1, 2], protocol=2)])
def test_a_damaged_bin_is_refused(riffusion_checkpoint, copy_of, tmp_path, content):
    legacy = with_legacy_weights(copy_of(riffusion_checkpoint))
    (legacy / "unet" / "diffusion_pytorch_model.bin").write_bytes(content)
    with pytest.raises(ModelError, match="refused") as caught:
        convert_checkpoint(legacy, tmp_path / "converted")
    one_line(caught)


def test_saving_replaces_a_checkpoint_only_by_force_and_nothing_else_ever(mini_checkpoint, tmp_path):
    pipeline, config, _ = load_checkpoint(mini_checkpoint)
    save_checkpoint(pipeline, config, tmp_path / "model")
    (tmp_path / "model" / "old").touch()
    with pytest.raises(RiffError, match="--force"):
        save_checkpoint(pipeline, config, tmp_path / "model")
    save_checkpoint(pipeline, config, tmp_path / "model", force=True)
    assert not (tmp_path / "model" / "old").exists()
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "song.wav").touch()
    with pytest.raises(RiffError, match="it is not a checkpoint"):
        save_checkpoint(pipeline, config, tmp_path / "music", force=True)
    with pytest.raises(RiffError, match="does not exist; create it"):
        save_checkpoint(pipeline, config, tmp_path / "nowhere" / "model")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "music"}


def test_an_interrupted_save_keeps_the_old_checkpoint(mini_checkpoint, tmp_path, monkeypatch):
    pipeline, config, _ = load_checkpoint(mini_checkpoint)
    save_checkpoint(pipeline, config, tmp_path / "model")

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(riff.diffusion.checkpoint, "save_vocabulary", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(pipeline, config, tmp_path / "model", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    load_checkpoint(tmp_path / "model")


def test_the_bundled_model_is_what_no_name_and_its_name_mean(mini_checkpoint, monkeypatch, tmp_path):
    monkeypatch.setattr(riff.diffusion.hub, "BUNDLED", mini_checkpoint)
    assert load_checkpoint(None)[1] == load_checkpoint("riff-mini")[1] == SpectrogramConfig.load(mini_checkpoint)
    monkeypatch.setattr(riff.diffusion.hub, "BUNDLED", tmp_path / "gone")
    with pytest.raises(ModelError, match="install riff again"):
        load_checkpoint()


@pytest.mark.parametrize("source", ["no/such/folder", "nothing", "../up/../there", "a/..", "", Path("owner/name")])
def test_neither_a_folder_nor_a_hub_id_is_refused_offline(source, monkeypatch):
    monkeypatch.setattr(riff.diffusion.hub, "_download", lambda *args: pytest.fail("asked the Hub"))
    with pytest.raises(ModelError, match="no checkpoint at") as caught:
        load_checkpoint(source)
    one_line(caught)


def test_a_hub_id_downloads_safe_files_of_the_five_parts_only(mini_checkpoint, monkeypatch):
    from fnmatch import fnmatch

    import huggingface_hub

    asked = {}

    def download(name, **options):
        asked.update(name=name, **options)
        return str(mini_checkpoint)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    load_checkpoint("riffusion/riffusion-model-v1", revision="main", local_files_only=True)
    assert asked["name"] == "riffusion/riffusion-model-v1"
    assert asked["revision"] == "main"
    assert asked["local_files_only"] is True

    def wanted(path: str) -> bool:
        ignored = any(fnmatch(path, pattern) for pattern in asked["ignore_patterns"])
        return not ignored and any(fnmatch(path, pattern) for pattern in asked["allow_patterns"])

    for path in ("model_index.json", UNET, "tokenizer/merges.txt", "spectrogram_config.json"):
        assert wanted(path), path
    for path in (
        "unet/diffusion_pytorch_model.bin",
        "riffusion-model-v1.ckpt",
        "unet_traced/unet_traced.pt",
        "safety_checker/model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/evil.py",
    ):
        assert not wanted(path), path


def test_a_hub_model_without_safetensors_names_the_convert_command(riffusion_checkpoint, copy_of, monkeypatch):
    import huggingface_hub

    folder = copy_of(riffusion_checkpoint)
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **options: str(folder))
    with pytest.raises(ModelError, match=r"riff convert riffusion/riffusion-model-v1 -o DIR"):
        load_checkpoint("riffusion/riffusion-model-v1")


def test_offline_a_hub_id_is_one_line_with_a_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="go online") as caught:
        load_checkpoint("riffusion/riffusion-model-v1", local_files_only=True)
    one_line(caught)


def test_a_single_file_that_is_no_safetensors_is_refused(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"x")
    with pytest.raises(ModelError, match="riff opens no other weights"):
        load_checkpoint(tmp_path / "model.ckpt")


def test_a_single_file_that_is_no_stable_diffusion_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be loaded") as caught:
        load_checkpoint(tmp_path / "model.safetensors")
    one_line(caught)


def test_the_prior_reads_tempo_and_metre_and_stays_in_range(tmp_path):
    prior = MusicPrior(weight=torch.tensor([[1.0, 0.0], [0.0, 1.0]]), bias=torch.tensor([6.0, 0.0]))
    assert prior.bpm(torch.tensor([[[0.5, 0.0], [0.5, 0.0]]])) == round(2**6.5)
    assert prior.bpm(torch.full((1, 3, 2), 1e4)) == 180.0
    assert prior.bpm(torch.full((3, 2), -1e4)) == 50.0
    assert prior.beats_per_bar(torch.tensor([[0.0, 0.1]])) == 3
    assert prior.beats_per_bar(torch.tensor([[0.0, -0.1]])) == 4
    prior.save(tmp_path)
    torch.testing.assert_close(MusicPrior.load(tmp_path).weight, prior.weight)


@pytest.mark.parametrize(("shape", "value"), [((2, 3), torch.nan), ((3, 3), 0.0), ((2,), 0.0)])
def test_a_prior_of_another_shape_or_not_finite_is_refused(shape, value):
    with pytest.raises(ModelError, match="music prior"):
        MusicPrior(weight=torch.full(shape, value), bias=torch.zeros(2))


def test_loading_leaves_the_libraries_as_talkative_as_before(mini_checkpoint):
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    before = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    load_checkpoint(mini_checkpoint)
    assert (diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()) == before
    with pytest.raises(ZeroDivisionError), quiet_libraries():
        1 / 0  # noqa: B018
    assert (diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()) == before


def load_in_a_process(folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    code = f"from riff.diffusion.checkpoint import load_checkpoint; load_checkpoint({str(folder)!r})"
    env = {"PYTHONPATH": path, "PATH": "/usr/bin"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)


def test_loading_prints_nothing_and_a_foreign_torchaudio_is_one_line(mini_checkpoint, tmp_path):
    root = str(Path(riff.diffusion.hub.__file__).parents[2])
    done = load_in_a_process(mini_checkpoint, root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text("raise OSError('undefined symbol')")
    done = load_in_a_process(mini_checkpoint, f"{tmp_path}:{root}")
    assert done.stderr.splitlines()[-1].startswith("riff.utils.errors.SystemProblem")
    assert "undefined symbol" in done.stderr.splitlines()[-1]
    assert "python -m pip install 'torchaudio" in done.stderr.splitlines()[-1]
