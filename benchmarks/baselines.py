"""The other ways from an image to sound and back: Riffusion's algorithm through torchaudio, and librosa's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn import functional

from riff.spectrogram.config import SpectrogramConfig

# librosa.feature.melspectrogram's defaults, for at Riffusion's parameters its least squares solver asks for 155 GiB.
LIBROSAS = SpectrogramConfig(
    sample_rate=22050,
    n_fft=2048,
    win_length=2048,
    hop_length=512,
    n_mels=128,
    f_min=0.0,
    f_max=11025.0,
    mel_scale="slaney",
    norm="slaney",
    grid="seconds",
)


def riffusions_algorithm(config: SpectrogramConfig, hop_length: int) -> Callable[[Tensor], Tensor]:
    """Mel (1, M, N) to waveform (1, T) as Riffusion v1 does it: least squares, then 32 Griffin-Lim iterations at 0.99.

    Args:
        config: whose window, transform and filters are used in place of Riffusion's own.
        hop_length: samples per column.

    Raises:
        ImportError: torchaudio cannot be imported.
    """
    from torchaudio.transforms import GriffinLim, InverseMelScale

    bins = config.n_fft // 2 + 1
    unmel = InverseMelScale(bins, config.n_mels, config.sample_rate, config.f_min, config.f_max, None, "htk")
    griffin_lim = GriffinLim(config.n_fft, 32, config.win_length, hop_length, power=1.0, momentum=0.99)

    def invert(mel: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            sound: Tensor = griffin_lim(unmel(mel))
        # It is one hop short; the rest is silence.
        return torch.nn.functional.pad(sound, (0, hop_length))

    return invert


def torchaudios_mel(config: SpectrogramConfig) -> Callable[[Tensor], Tensor]:
    """Waveform (1, T) to mel (1, M, N) as Riffusion v1 draws it.

    Raises:
        ImportError: torchaudio cannot be imported.
    """
    from torchaudio.transforms import MelScale, Spectrogram

    spectrogram = Spectrogram(config.n_fft, config.win_length, config.hop_length, power=None)
    scale = MelScale(config.n_mels, config.sample_rate, config.f_min, config.f_max, config.n_fft // 2 + 1, None, "htk")

    def draw(waveform: Tensor) -> Tensor:
        mel: Tensor = scale(spectrogram(waveform).abs())
        return mel

    return draw


def librosas_sound(mel: Tensor) -> Tensor:
    """Mel (1, M, N) of :data:`LIBROSAS` to waveform (1, T) by ``librosa.feature.inverse.mel_to_audio``."""
    import librosa

    sound = librosa.feature.inverse.mel_to_audio(mel[0].numpy(), sr=LIBROSAS.sample_rate, power=1.0)
    return torch.from_numpy(sound)[None]


# A training step of Stable Diffusion as the textbook has it: the objective of
# diffusers' `train_text_to_image.py`.
#
# Written anew from diffusers' public API, to be measured against; nothing is cached, nothing is riff's.

_PRECISIONS = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def textbook_training(
    model: str,
    pictures: Tensor,
    captions: list[str],
    *,
    batch_size: int,
    method: str = "full",
    mixed_precision: str = "no",
    rank: int = 16,
    learning_rate: float = 1e-4,
) -> NoReturn:
    """Train for ever; whoever counts the steps ends it with an exception.

    Args:
        model: a Stable Diffusion folder.
        pictures: (n, C, M, N) in [-1, 1].
        captions: one per picture.
        method: "full" trains the UNet and keeps an average of its weights, "lora" its attention by adapters.
        batch_size: images a step.
        mixed_precision: "no", "fp16" or "bf16"; frozen parts are kept in it.
        rank: of the adapters.
        learning_rate: of AdamW, constant.
    """
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.training_utils import EMAModel

    accelerator = Accelerator(mixed_precision=mixed_precision)
    parts: Any = StableDiffusionPipeline.from_pretrained(
        model, dtype=torch.float32, safety_checker=None, requires_safety_checker=False, local_files_only=True
    )
    scheduler: Any = DDPMScheduler.from_config(parts.scheduler.config)
    unet = parts.unet.train()
    for frozen in (parts.vae, parts.text_encoder):
        frozen.requires_grad_(False).to(accelerator.device, _PRECISIONS[mixed_precision])
    trained = _trained(unet, method, rank)
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    ema = EMAModel(trained) if method == "full" else None
    ids = _tokens(parts.tokenizer, captions)
    lessons = torch.utils.data.TensorDataset(pictures, ids)
    loader = torch.utils.data.DataLoader(lessons, batch_size=batch_size, shuffle=True, drop_last=True)
    unet, optimizer, loader = accelerator.prepare(unet, optimizer, loader)
    while True:
        for pixels, told in loader:
            loss = _loss(unet, parts, scheduler, pixels, told)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if ema is not None:
                ema.step(trained)


def _trained(unet: Any, method: str, rank: int) -> list[torch.nn.Parameter]:
    unet.requires_grad_(method == "full")
    if method == "lora":
        from peft import LoraConfig

        targets = ["to_k", "to_q", "to_v", "to_out.0"]
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets))
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def _tokens(tokenizer: Any, captions: list[str]) -> Tensor:
    length = tokenizer.model_max_length
    ids: Tensor = tokenizer(
        captions, max_length=length, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def _loss(unet: Any, parts: Any, scheduler: Any, pixels: Tensor, told: Tensor) -> Tensor:
    """Mean squared error of the predicted noise or velocity at random timesteps."""
    encoded = parts.vae.encode(pixels.to(parts.vae.dtype))
    latents = encoded.latent_dist.sample() if hasattr(encoded, "latent_dist") else encoded.latents
    latents = latents * parts.vae.config.scaling_factor
    noise = torch.randn_like(latents)
    timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(latents),), device=latents.device)
    noisy = scheduler.add_noise(latents, noise, timesteps)
    prompt_embeds = parts.text_encoder(told)[0]
    if scheduler.config.prediction_type == "v_prediction":
        target = scheduler.get_velocity(latents, noise, timesteps)
    else:
        target = noise
    predicted = unet(noisy, timesteps, prompt_embeds).sample
    return functional.mse_loss(predicted.float(), target.float())
