"""From a folder of captioned pictures to a checkpoint that renders, with the commands a user types."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from riff.pipeline import RiffPipeline
from riff.spectrogram.config import SpectrogramConfig
from riff.train.data.images import load_image_sets
from riff.train.settings import LoopSettings
from riff.utils.errors import RiffError
from training.composer.captions import nameless_wordings, vocabulary
from training.composer.genre_words import NAMES
from training.composer.genres import GENRES
from training.recipes.autoencoder import AutoencoderObjective, encode_mode, reconstruction_loss
from training.recipes.checkpoint import build_tokenizer
from training.recipes.denoiser import DenoiserObjective, LatentSet, encode_pictures
from training.recipes.riff_mini import main
from training.recipes.text_encoder import TextObjective, token_ids, train_text

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

CONFIG = SpectrogramConfig(
    sample_rate=8000,
    n_fft=512,
    win_length=256,
    hop_length=64,
    n_mels=32,
    f_min=20,
    f_max=4000,
    width=64,
    frames_per_beat=16,
)
RECIPE = {
    "vae_class": "AutoencoderTiny",
    "vae": {
        "in_channels": 1,
        "out_channels": 1,
        "encoder_block_out_channels": [8] * 4,
        "decoder_block_out_channels": [8] * 4,
        "num_encoder_blocks": [0, 1, 1, 1],
        "num_decoder_blocks": [1, 1, 1, 0],
        "latent_channels": 4,
    },
    "unet": {
        "in_channels": 4,
        "out_channels": 4,
        "sample_size": 8,
        "block_out_channels": [8, 16],
        "layers_per_block": 1,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 2,
    },
    "text_encoder": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    "tokens": 24,
    "scheduler": {
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "clip_sample": False,
        "steps_offset": 1,
    },
    "text_objective": {"pieces": 10, "batch_size": 4},
    "text_loop": {
        "steps": 4,
        "learning_rate": 1e-3,
        "checkpointing_steps": 2,
        "preview_steps": 4,
        "mixed_precision": "no",
    },
    "train_text_encoder": False,
    "decoder_objective": {"batch_size": 2, "crop": 32, "texture": 1.0},
    "decoder_loop": {
        "steps": 2,
        "learning_rate": 1e-3,
        "checkpointing_steps": 2,
        "preview_steps": 2,
        "mixed_precision": "no",
        "channels_last": True,
    },
    "vae_objective": {"batch_size": 2, "crop": 32},
    "vae_loop": {
        "steps": 4,
        "learning_rate": 1e-3,
        "checkpointing_steps": 2,
        "preview_steps": 4,
        "mixed_precision": "no",
    },
    "judge_loop": {"steps": 2, "learning_rate": 1e-3, "mixed_precision": "no"},
    "obedience_objective": {"batch_size": 2, "steps": 4, "first": 1, "last": 2},
    "obedience_loop": {"steps": 2, "learning_rate": 1e-3, "mixed_precision": "no"},
    "polish_objective": {"clips": 4, "drawn": 2, "rebuilt": 2, "crop": 64},
    "polish_fidelity": {"squared": 4.0, "texture": 3.0},
    "polish_loop": {"steps": 2, "learning_rate": 1e-3, "mixed_precision": "no", "channels_last": True},
    "denoiser_objective": {"batch_size": 4},
    "denoiser_loop": {
        "steps": 4,
        "learning_rate": 1e-3,
        "checkpointing_steps": 2,
        "preview_steps": 4,
        "mixed_precision": "no",
    },
}


def write_split(folder: Path, *, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for beats, width in ((4, 64), (3, 48)):
        np.save(folder / f"pictures-{beats}-000000.npy", rng.integers(0, 256, (n, 32, width), dtype=np.uint8))
        clips = [
            {
                "bpm": 80.0 + 5 * i,
                "beats_per_bar": beats,
                "captions": [f"techno, {80 + 5 * i} bpm", "flute lullaby in c major"],
                "genre": "techno",
                "lead": "flute",
                "keyscale": "C major",
            }
            for i in range(n)
        ]
        (folder / f"clips-{beats}-000000.jsonl").write_text("".join(json.dumps(clip) + "\n" for clip in clips))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    write_split(folder / "train", n=8, seed=0)
    write_split(folder / "heldout", n=2, seed=1)
    CONFIG.save(folder)
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    return folder


def run(stage: str, data: Path, *more: str) -> int:
    root = data.parent
    return main([stage, "--recipe", str(root / "recipe.json"), "--data", str(data), "--out", str(root / "run"), *more])


def test_pictures_in_a_folder_become_a_checkpoint_that_renders(data: Path):
    assert run("vae", data) == 0
    assert run("denoiser", data, "--until", "2") == 0
    assert run("denoiser", data) == 0
    folder = data.parent / "run" / "checkpoint"
    assert {path.name for path in folder.iterdir()} >= {
        "unet",
        "vae",
        "text_encoder",
        "tokenizer",
        "scheduler",
    }
    assert all(path.suffix != ".bin" for path in folder.rglob("*"))
    pipe = RiffPipeline.from_pretrained(folder, device="cpu")
    assert pipe.config == CONFIG
    clip = pipe("techno", bpm=120, seed=1, num_inference_steps=2).clips[0]
    assert clip.waveform.shape == (1, round(4 * 60 / 120 * 8000))
    again = RiffPipeline.from_pretrained(folder, device="cpu")("techno", bpm=120, seed=1, num_inference_steps=2)
    assert torch.equal(clip.waveform, again.clips[0].waveform)
    # A later session starts from these weights with a fresh optimizer.
    other = data.parent / "more"
    arguments = ["--recipe", str(data.parent / "recipe.json"), "--data", str(data), "--out", str(other)]
    assert main(["denoiser", *arguments, "--init-from", str(folder), "--steps", "1"]) == 0
    assert (other / "checkpoint" / "music_prior.safetensors").exists()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def test_text_stage_teaches_an_encoder_that_the_denoiser_then_leaves_as_it_is(data: Path):
    root = data.parent
    stage = ["text", "--recipe", str(root / "recipe.json"), "--out", str(root / "run")]
    assert main(stage) == 0
    assert run("vae", data) == 0
    assert run("denoiser", data) == 0
    taught = weights(root / "run" / "text" / "text_encoder")
    kept = weights(root / "run" / "checkpoint" / "text_encoder")
    assert taught.keys() == kept.keys()
    assert all(torch.equal(taught[name].half(), kept[name]) for name in taught)


@torch.no_grad()
def share_of_phrases_nearest_to_their_genres_name(encoder: torch.nn.Module, tokenizer: object) -> float:
    def state(text: str) -> torch.Tensor:
        return encoder(token_ids([text], tokenizer)).last_hidden_state.mean(1)[0]

    names = list(GENRES)
    centres = torch.stack([state(NAMES[name][0]) for name in names])
    phrases = [(name, phrase) for name in names for phrase in nameless_wordings(name)[:4]]
    nearest = [names[int((centres - state(phrase)).norm(dim=1).argmin())] for _, phrase in phrases]
    return sum(found == name for found, (name, _) in zip(nearest, phrases, strict=True)) / len(phrases)


def test_text_stage_brings_phrases_that_only_paraphrase_a_genre_near_its_name(tmp_path: Path):
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = build_tokenizer(vocabulary(), model_max_length=48)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    size = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = CLIPTextModel(CLIPTextConfig(**size, vocab_size=len(tokenizer), max_position_embeddings=48, **ids))
    assert share_of_phrases_nearest_to_their_genres_name(encoder, tokenizer) < 0.2
    settings = LoopSettings(
        steps=1300, learning_rate=1e-2, warmup_steps=5, ema_decay=0.9, mixed_precision="no", preview_steps=1000
    )
    train_text(encoder, tokenizer, TextObjective(pieces=900, batch_size=32), settings, tmp_path)
    assert share_of_phrases_nearest_to_their_genres_name(encoder, tokenizer) > 0.4


def test_decoder_stage_changes_the_decoder_alone_so_the_latents_stay(data: Path):
    assert run("vae", data) == 0
    folder = data.parent / "run" / "autoencoder"
    before = weights(folder)
    assert run("denoiser", data, "--until", "1") == 0
    assert run("decoder", data) == 0
    after = weights(folder)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("encoder."))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("decoder."))
    # Packaging again finds the cached latents and puts the new decoder into the checkpoint.
    assert run("denoiser", data, "--until", "1") == 0
    assert len(list((data.parent / "run" / "cache").iterdir())) == 2
    packed = weights(data.parent / "run" / "checkpoint" / "vae")
    assert all(torch.equal(after[name].half(), packed[name]) for name in after)


def test_obey_stage_changes_the_denoiser_alone_and_says_how_good_its_judge_is(data: Path, caplog):
    assert run("vae", data) == 0
    assert run("denoiser", data) == 0
    with caplog.at_level("INFO"):
        assert run("obey", data) == 0
    assert "of held-out clips the judge knows genre 1.000, lead 1.000, key" in caplog.text
    before, after = (data.parent / "run" / name for name in ("checkpoint", "checkpoint-obedient"))
    for part in ("vae", "text_encoder"):
        assert all(torch.equal(weights(after / part)[name], kept) for name, kept in weights(before / part).items())
    assert any(not torch.equal(weights(after / "unet")[name], old) for name, old in weights(before / "unet").items())
    assert RiffPipeline.from_pretrained(after)("techno", num_inference_steps=2).clips[0].waveform.isfinite().all()


def test_polish_stage_changes_the_decoder_alone_so_every_latent_stays(data: Path):
    assert run("vae", data) == 0
    assert run("denoiser", data) == 0
    folder = data.parent / "run"
    assert run("polish", data, "--init-from", str(folder / "checkpoint")) == 0
    before, after = folder / "checkpoint", folder / "checkpoint-polished"
    for part in ("unet", "text_encoder"):
        assert all(torch.equal(weights(after / part)[name], kept) for name, kept in weights(before / part).items())
    old, new = weights(before / "vae"), weights(after / "vae")
    assert all(torch.equal(old[name], new[name]) for name in old if name.startswith("encoder."))
    assert any(not torch.equal(old[name], new[name]) for name in old if name.startswith("decoder."))
    assert RiffPipeline.from_pretrained(after)("techno", num_inference_steps=2).clips[0].waveform.isfinite().all()


def test_texture_term_prefers_sharp_noise_to_its_blur():
    images = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    other = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    blurred = torch.nn.functional.avg_pool2d(images, 3, 1, 1)
    plain, textured = AutoencoderObjective(), AutoencoderObjective(texture=10.0)
    assert reconstruction_loss(blurred, images, plain) < reconstruction_loss(other, images, plain)
    assert reconstruction_loss(blurred, images, textured) > reconstruction_loss(other, images, textured)
    assert float(reconstruction_loss(images, images, textured)) == 0.0


def test_latents_are_cached_per_autoencoder_and_pictures(data: Path, tmp_path: Path):
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    vae = AutoencoderTiny(**RECIPE["vae"]).eval()
    pictures = load_image_sets(data / "train")[0][0]
    first = encode_pictures(vae, pictures, cache=tmp_path / "cache")
    assert torch.equal(encode_pictures(vae, pictures, cache=tmp_path / "cache"), first)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    with torch.no_grad():
        next(vae.parameters()).add_(0.1)
    assert not torch.equal(encode_pictures(vae, pictures, cache=tmp_path / "cache"), first)
    expected = encode_mode(vae, pictures.images(torch.arange(2)) * 2 - 1) * vae.config.scaling_factor
    assert encode_pictures(vae, pictures, cache=tmp_path / "cache")[:2].shape == expected.shape


def test_dropped_captions_are_empty_ones_and_the_share_is_as_asked():
    latents = LatentSet(
        torch.zeros(10, 1, 2, 2), torch.ones(10, 3, 5, dtype=torch.int32), torch.zeros(5, dtype=torch.int32)
    )
    objective = DenoiserObjective(batch_size=4000, caption_dropout=0.25)
    _, ids = latents.batch(objective, torch.Generator().manual_seed(0))
    share = float((ids.sum(1) == 0).float().mean())
    assert abs(share - 0.25) < 0.03  # four standard deviations
    assert set(ids.sum(1).tolist()) == {0, 5}


def test_of_two_captions_drawn_the_longer_one_is_told():
    input_ids = torch.zeros(10, 3, 6, dtype=torch.int32)
    for caption, length in enumerate((1, 3, 5)):
        input_ids[:, caption, :length] = 1
    latents = LatentSet(torch.zeros(10, 1, 2, 2), input_ids, torch.zeros(6, dtype=torch.int32))
    objective = DenoiserObjective(batch_size=9000, caption_dropout=0.0, caption_draws=2)
    _, ids = latents.batch(objective, torch.Generator().manual_seed(0))
    lengths = ids.sum(1)
    # Of nine pairs of draws one is (short, short), and five hold the longest.
    assert abs(float((lengths == 1).float().mean()) - 1 / 9) < 0.02
    assert abs(float((lengths == 5).float().mean()) - 5 / 9) < 0.02


def test_perfect_reconstruction_costs_nothing_and_a_blur_along_frequency_costs_more_than_an_offset():
    images = torch.rand(1, 1, 16, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    objective = AutoencoderObjective(squared=0.0, gradient=0.5)
    assert float(reconstruction_loss(images, images, objective)) == 0.0
    offset = reconstruction_loss(images + 0.3, images, objective)
    torch.testing.assert_close(offset, torch.tensor(0.3), atol=1e-6, rtol=0)
    sign = torch.tensor([1.0, -1.0]).repeat(8)[None, None, :, None]
    assert float(reconstruction_loss(images + 0.3 * sign, images, objective)) > 0.5


def test_a_folder_without_shards_and_shards_that_disagree_are_named(data: Path, tmp_path: Path):
    with pytest.raises(RiffError, match=r"holds no pictures"):
        load_image_sets(tmp_path / "nothing")
    clips = data / "train" / "clips-4-000000.jsonl"
    clips.write_text(clips.read_text().splitlines()[0] + "\n")
    with pytest.raises(RiffError, match="8 images but 1 clips"):
        load_image_sets(data / "train")
