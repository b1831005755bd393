"""What the pipeline hands out: a sound with its picture, and how it was made."""

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from riff.audio.io import save_audio
from riff.audio.loudness import peak_normalize
from riff.audio.tags import MACHINE_MADE
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.display import paint, show_sound
from riff.spectrogram.image import image_to_mel, image_to_pil
from riff.spectrogram.inversion.solver import Quality
from riff.spectrogram.inversion.waveform import mel_to_waveform
from riff.spectrogram.png import write_png
from riff.spectrogram.tempo import TempoMap
from riff.tasks.provenance import provenance, sound_tags

if TYPE_CHECKING:
    from PIL.Image import Image

# Louder than this and a clip is turned down, so that no sample is clipped in a file.
PEAK = 0.97


@dataclasses.dataclass
class Clip:
    """A piece of music.

    Attributes:
        waveform: ``(C, T)`` float32 in [-1, 1].
        sample_rate: samples per second.
        image: ``(C, M, N)`` in [0, 1], row 0 at the highest frequency.
        config: what the picture means.
        prompt: as the user wrote it.
        seed: makes this clip again, with the same settings.
        bpm: tempo in beats per minute.
        tempo: where the tempo is not one: from beats to seconds; ``bpm`` is what it begins with.
        settings: how it was made: model, steps, guidance, scheduler, what was ignored, ...
    """

    waveform: Tensor
    sample_rate: int
    image: Tensor
    config: SpectrogramConfig
    prompt: str
    seed: int
    bpm: float
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    tempo: TempoMap | None = None

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.waveform.shape[-1] / self.sample_rate

    @property
    def ignored_words(self) -> list[str]:
        """Words of the prompt that the model was not taught."""
        return list(self.settings.get("ignored_words", ()))

    @property
    def dropped_words(self) -> list[str]:
        """Words of the prompt past the length the model reads."""
        return list(self.settings.get("dropped_words", ()))

    @property
    def provenance(self) -> dict[str, str]:
        """How the clip was made, as text: what :meth:`save` writes into the file."""
        known = (
            *(
                "model",
                "steps",
                "guidance",
                "guidance_interval",
                "scheduler",
                "negative_prompt",
                "keyscale",
                "bars",
                "duration",
            ),
            *("loop", "timeline", "task", "strength", "timesignature", "key_tries", "key_measured", "key_moved"),
            *("model_hash", "loras", "quality", "config", "device", "dtype", "torch", "bpm_asked", "downbeat"),
            *("ends_pinned", "from_latents", "source", "regions", "band", "stems", "separator", "compiled"),
        )
        fields = {name: self.settings[name] for name in known if name in self.settings}
        return provenance(self.prompt, seed=self.seed, bpm=self.bpm, **{"model": "unknown", **fields})

    def save(self, path: str | Path, *, force: bool = True, metadata: bool = True) -> Path:
        """Write the sound, or the spectrogram if ``path`` ends in .png; complete or not at all.

        Args:
            path: ends in .wav, .flac, .ogg, .mp3 or .png.
            force: False refuses to replace a file.
            metadata: write how the clip was made; False leaves only the mark that a machine made it, so that the file
                cannot be replayed, and a picture must be told its tempo.

        Returns:
            The path.

        Raises:
            RiffError: unknown suffix, missing folder, file exists, samples are not finite.
            SystemProblem: the disk is full or the folder read-only.
        """
        if Path(path).suffix.lower() == ".png":
            told: dict[str, Any] = dict(self.provenance) if metadata else {"origin": MACHINE_MADE}
            if metadata and self.tempo is not None and self.tempo.steady is None and self.config.grid == "beats":
                told["tempo"] = self.tempo.to_dict()  # as Encoded.metadata has it, so that it is played by its map
            return write_png(path, self.image, self.config, metadata=told, force=force)
        tags = sound_tags(self.provenance if metadata else {})
        return save_audio(path, self.waveform, self.sample_rate, metadata=tags, force=force)

    def _repr_html_(self) -> str:
        """A player under the coloured spectrogram, and the facts, in one snippet that needs no other file."""
        with tempfile.TemporaryDirectory() as folder:
            wav = self.save(Path(folder) / "clip.wav").read_bytes()
        image = paint(self.image, width=1200, height=256, dark=self.config.amplitude == "decibel")
        facts = (f"seed {self.seed}", f"{self.bpm:g} bpm", f"{self.duration:.2f} s")
        return show_sound(wav, self.prompt, image=image, facts=facts, loop=bool(self.settings.get("loop"))).html


@dataclasses.dataclass
class RiffOutput:
    """The clips of one call.

    Attributes:
        clips: in the order of the prompts, the waveforms of one prompt side by side.
        sampling_rate: samples per second.
    """

    clips: list[Clip]
    sampling_rate: int

    @property
    def sample_rate(self) -> int:
        """The same as ``sampling_rate``."""
        return self.sampling_rate

    @property
    def audios(self) -> np.ndarray:
        """``(B, C, T)`` float32; shorter clips are followed by silence."""
        longest = max(clip.waveform.shape[-1] for clip in self.clips)
        rows = [np.pad(clip.waveform.numpy(), ((0, 0), (0, longest - clip.waveform.shape[-1]))) for clip in self.clips]
        return np.stack(rows)

    @property
    def images(self) -> "list[Image]":
        """The spectrograms as PIL images."""
        return [image_to_pil(clip.image, clip.config) for clip in self.clips]


def play(
    image: Tensor,
    config: SpectrogramConfig,
    *,
    bpm: float | TempoMap,
    seed: int,
    quality: Quality = "default",
    loop: bool = False,
) -> Tensor:
    """The sound ``(C, T)`` of a drawn picture ``(C, M, N)``, no louder than a file can hold.

    The power scale forgets how loud a clip was, so it is brought to a peak; the decibel scale knows, and is only kept
    from clipping.
    """
    waveform = mel_to_waveform(
        image_to_mel(image, config),
        config,
        bpm=bpm,
        quality=quality,
        loop=loop,
        generator=torch.Generator().manual_seed(seed),
    )
    if config.amplitude == "power" or float(waveform.abs().max()) > PEAK:
        return peak_normalize(waveform, peak=PEAK)
    return waveform
