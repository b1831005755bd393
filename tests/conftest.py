"""Tiny checkpoints with random weights, in the two layouts riff loads: riff-mini's own and Riffusion v1's."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

# Each worker of pytest-xdist has a core: with a thread per core in every worker they wait for one another. And each
# keeps what numba compiles for itself: two that compile a function of librosa's at once leave a mixture that crashes.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cache = Path(__file__).parents[1] / ".pytest_cache" / f"numba-{os.environ['PYTEST_XDIST_WORKER']}"
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache))

WORDS = [
    *(
        "techno",
        "jazz",
        "piano",
        "guitar",
        "mellow",
        "electric",
        "lo-fi hip hop",
        "lullaby",
        "waltz",
        "drums",
        "bass",
    ),
    *("bpm", "in", "minor", "major", "and", "with", "the", "slow", "fast", *"abcdefg"),
]


def growth(work: Callable[[int], object], size: int) -> float:
    """How many times the processor time of ``work(size // 10)`` ``work(size)`` takes: 10 if it grows with the size.

    The least of three each, on one thread: threads that wait for each other on a busy machine count as work too.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        small, large = (min(_processor_time(work, n) for _ in range(3)) for n in (size // 10, size))
    finally:
        torch.set_num_threads(threads)
    return large / small


def _processor_time(work: Callable[[int], object], size: int) -> float:
    began = time.process_time()
    work(size)
    return time.process_time() - began


def tiny_unet(*, latent_channels: int, cross_attention_dim: int):
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=2,
        norm_num_groups=4,
    ).eval()


def tiny_vae(*, picture_channels: int, latent_channels: int):
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(2)
    return AutoencoderKL(
        in_channels=picture_channels,
        out_channels=picture_channels,
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.5,
    ).eval()


def tiny_autoencoder(*, picture_channels: int, latent_channels: int):
    import torch
    from diffusers import AutoencoderTiny

    torch.manual_seed(2)
    return AutoencoderTiny(
        in_channels=picture_channels,
        out_channels=picture_channels,
        latent_channels=latent_channels,
        encoder_block_out_channels=(4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
        scaling_factor=0.5,
    ).eval()


def tiny_text_encoder(tokenizer):
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(3)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config).eval()


def tiny_pipeline(*, picture_channels: int, latent_channels: int, scheduler):
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    from training.recipes.checkpoint import build_tokenizer

    tokenizer = build_tokenizer(WORDS, model_max_length=24)
    text_encoder = tiny_text_encoder(tokenizer)
    return StableDiffusionPipeline(
        vae=tiny_vae(picture_channels=picture_channels, latent_channels=latent_channels),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=tiny_unet(latent_channels=latent_channels, cross_attention_dim=16),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="session")
def mini_config():
    """A small picture on the beats grid: 32 mels, 8 columns per beat, 64 columns."""
    from riff.spectrogram.config import SpectrogramConfig

    return SpectrogramConfig(
        sample_rate=8000,
        n_fft=1024,
        win_length=512,
        hop_length=64,
        n_mels=32,
        f_max=4000.0,
        frames_per_beat=8,
        width=64,
    )


@pytest.fixture(scope="session")
def mini_checkpoint(tmp_path_factory, mini_config) -> Path:
    """riff-mini in miniature: 1-channel VAE, v-prediction, zero terminal SNR, closed vocabulary, prior."""
    import torch
    from diffusers import DDIMScheduler

    from riff.diffusion.checkpoint import save_checkpoint
    from riff.prompt.prior import MusicPrior

    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    pipeline = tiny_pipeline(picture_channels=1, latent_channels=8, scheduler=scheduler)
    prior = MusicPrior(weight=torch.zeros(2, 16), bias=torch.tensor([6.5, -4.0]))
    folder = tmp_path_factory.mktemp("mini") / "riff-tiny"
    return save_checkpoint(pipeline, mini_config, folder, prior=prior)


@pytest.fixture(scope="session")
def riffusion_checkpoint(tmp_path_factory) -> Path:
    """Riffusion v1 in miniature, with nothing of riff's: 3-channel VAE, 4 latent channels, PNDM, epsilon."""
    from diffusers import PNDMScheduler

    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = tiny_pipeline(picture_channels=3, latent_channels=4, scheduler=scheduler)
    folder = tmp_path_factory.mktemp("riffusion") / "riffusion-tiny"
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture
def copy_of(tmp_path) -> Callable[[Path], Path]:
    """A copy of a checkpoint that a test may damage."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / f"copy-of-{folder.name}"))

    return copy


def with_safety_checker(folder: Path) -> Path:
    """Make ``folder`` list a safety checker and a feature extractor, as Riffusion v1's first upload does."""
    index_file = folder / "model_index.json"
    index = json.loads(index_file.read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPFeatureExtractor"]
    index.pop("image_encoder", None)
    index.pop("requires_safety_checker", None)
    index_file.write_text(json.dumps(index))
    for name in ("safety_checker", "feature_extractor"):
        (folder / name).mkdir()
    (folder / "safety_checker" / "pytorch_model.bin").write_bytes(b"never to be opened")
    return folder


def with_legacy_weights(folder: Path) -> Path:
    """Replace every .safetensors in ``folder`` by the .bin that Riffusion's first upload had."""
    import torch
    from safetensors.torch import load_file

    names = {"model.safetensors": "pytorch_model.bin"}
    for path in folder.rglob("*.safetensors"):
        tensors = load_file(path)
        torch.save(tensors, path.with_name(names.get(path.name, path.with_suffix(".bin").name)))
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def pipe(mini_checkpoint):
    """A pipeline of riff-mini in miniature."""
    from riff import RiffPipeline

    return RiffPipeline.from_pretrained(mini_checkpoint, device="cpu")


@pytest.fixture(scope="module")
def riffusion_pipe(riffusion_checkpoint):
    """A pipeline of Riffusion v1's layout, whose pictures are of its kind and small enough for a quick test."""
    from riff import RiffPipeline, SpectrogramConfig

    pipe = RiffPipeline.from_pretrained(riffusion_checkpoint, device="cpu")
    pipe.model.config = SpectrogramConfig(
        sample_rate=8000, n_fft=1024, win_length=512, hop_length=80, n_mels=32, f_max=4000.0,
        amplitude="power", grid="seconds", width=64, stereo="left-right",
    )  # fmt: skip
    return pipe
