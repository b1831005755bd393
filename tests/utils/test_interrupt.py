"""Long work looks at its caller's check between two steps: a deadline or a signal is heeded everywhere on the ladder."""  # noqa: E501

import threading
from collections.abc import Callable

import pytest
import torch

from riff.audio.io import save_audio
from riff.diffusion.latents import image_to_latents, latents_to_image
from riff.music.beat_net import beat_probabilities
from riff.spectrogram.codec import SpectrogramCodec
from riff.spectrogram.config import SpectrogramConfig
from riff.utils.errors import checkpoint, interruptible

CONFIG = SpectrogramConfig(grid="seconds")


class Enough(Exception):
    """The caller's reason to stop."""


def stop_after(steps: int) -> Callable[[], None]:
    left = iter(range(steps))

    def check() -> None:
        if next(left, None) is None:
            raise Enough

    return check


@pytest.mark.parametrize("quality", ["fast", "default", "high", "best", "griffin-lim"])
def test_an_inversion_stops_between_two_iterations(quality) -> None:
    image = torch.rand(1, CONFIG.n_mels, 100)
    with interruptible(stop_after(2)), pytest.raises(Enough):
        SpectrogramCodec(CONFIG).decode(image, quality=quality)


def test_an_analysis_stops_between_two_pieces() -> None:
    with interruptible(stop_after(1)), pytest.raises(Enough):
        SpectrogramCodec(CONFIG).encode(torch.zeros(1, 60 * CONFIG.sample_rate))


@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_a_sound_file_stops_between_two_blocks_and_leaves_nothing(tmp_path, suffix) -> None:
    with interruptible(stop_after(3)), pytest.raises(Enough):
        save_audio(tmp_path / f"long.{suffix}", torch.zeros(1, 60 * 44_100), 44_100)
    assert not list(tmp_path.iterdir())


def test_a_beat_search_stops_between_two_minutes() -> None:
    with interruptible(stop_after(1)), pytest.raises(Enough):
        beat_probabilities(torch.zeros(1, 3 * 60 * 22_050), 22_050)


def test_an_autoencoder_stops_between_two_windows(pipe) -> None:
    vae = pipe.components.vae
    with interruptible(stop_after(1)), pytest.raises(Enough):
        image_to_latents(torch.zeros(1, 1, 32, 8 * 512), vae)
    with interruptible(stop_after(1)), pytest.raises(Enough):
        latents_to_image(torch.zeros(1, vae.config.latent_channels, 4, 512), vae, channels=1)


def test_denoising_stops_between_two_windows_of_one_step(pipe) -> None:
    with interruptible(stop_after(2)), pytest.raises(Enough):
        pipe("jazz", bars=64, num_inference_steps=1, seed=0)


def test_one_thread_s_check_does_not_stop_another() -> None:
    stopped = []

    def work() -> None:
        try:
            checkpoint()
        except Enough:
            stopped.append(True)

    with interruptible(stop_after(0)):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with pytest.raises(Enough):
            checkpoint()
    checkpoint()
    assert not stopped
