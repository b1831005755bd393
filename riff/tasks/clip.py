"""What the pipeline returns: a sound with its spectrogram, and how it was made."""

import dataclasses
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from torch import Tensor

from riff.audio.io import save_audio
from riff.audio.loudness import peak_normalize
from riff.audio.tags import MACHINE_MADE
from riff.diffusion.latents import seeded_generator
from riff.spectrogram.config import Quality, SpectrogramConfig
from riff.spectrogram.display import paint, show_sound
from riff.spectrogram.image import image_to_mel, image_to_pil
from riff.spectrogram.inversion.waveform import Vocoder, mel_to_waveform
from riff.spectrogram.png import write_png
from riff.spectrogram.tempo import TempoMap
from riff.tasks.provenance import provenance, sound_tags
from riff.utils.errors import RiffError
from riff.utils.schema import renamed_property

if TYPE_CHECKING:
    from PIL.Image import Image

# A clip that is louder is turned down, so that no sample is clipped in a file.
PEAK = 0.97
# Settings for those who work with a clip, which its file does not need.
_NOT_WRITTEN = frozenset(("ignored_words", "dropped_words", "beats_per_bar", "beats", "key_drawn"))


@dataclasses.dataclass(repr=False)
class Clip:
    """A piece of music.

    Attributes:
        waveform: ``(C, T)`` float32 in [-1, 1].
        sample_rate: samples per second.
        image: ``(C, M, N)`` in [0, 1], row 0 at the highest frequency.
        config: geometry and scale of the image.
        prompt: as the user wrote it.
        seed: makes this clip again, with the same settings.
        bpm: tempo in beats per minute.
        tempo: from beats to seconds, where the tempo changes; ``bpm`` is then the first one.
        settings: how it was made: model, steps, guidance, scheduler, ignored words, ...
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
        """Words of the prompt that the model does not know."""
        return list(self.settings.get("ignored_words", ()))

    @property
    def dropped_words(self) -> list[str]:
        """Words of the prompt past the length the model reads."""
        return list(self.settings.get("dropped_words", ()))

    @property
    def provenance(self) -> dict[str, str]:
        """How the clip was made, as text: what :meth:`save` writes into the file."""
        facts = {name: value for name, value in self.settings.items() if name not in _NOT_WRITTEN}
        return provenance(self.prompt, seed=self.seed, bpm=self.bpm, **{"model": "unknown", **facts})

    def save(
        self, path: str | Path, *, overwrite: bool = False, metadata: bool = True, force: bool | None = None
    ) -> Path:
        """Write the sound, or the spectrogram if ``path`` ends in .png; complete or not at all.

        Args:
            path: ends in .wav, .flac, .ogg, .mp3 or .png.
            overwrite: replace the file if it exists.
            metadata: write how the clip was made. False leaves only the mark that a machine made it, so the file cannot
                be replayed, and an image has to be decoded with a given tempo.
            force: the earlier name of ``overwrite``.

        Returns:
            The path.

        Raises:
            RiffError: unknown suffix, missing folder, the file exists, samples are not finite.
            SystemProblem: the disk is full or the folder read-only.
        """
        if force is not None:
            warnings.warn("force is now overwrite; the old name goes in the next release", FutureWarning, stacklevel=2)
            overwrite = force
        if not overwrite and Path(path).exists():
            raise RiffError(f"{path} exists already; give another name, or use --force (overwrite=True)")
        if Path(path).suffix.lower() == ".png":
            written: dict[str, Any] = dict(self.provenance) if metadata else {"origin": MACHINE_MADE}
            if metadata and self.tempo is not None and self.tempo.steady is None and self.config.grid == "beats":
                written["tempo"] = self.tempo.to_dict()  # as Encoded.metadata has it, so that it is played by its map
            return write_png(path, self.image, self.config, metadata=written, force=overwrite)
        tags = sound_tags(self.provenance if metadata else {})
        return save_audio(path, self.waveform, self.sample_rate, metadata=tags, force=overwrite)

    def __repr__(self) -> str:
        channels = {1: "mono", 2: "stereo"}.get(len(self.waveform), f"{len(self.waveform)} channels")
        prompt = self.prompt if len(self.prompt) <= 60 else f"{self.prompt[:57]}..."
        return (
            f"Clip({prompt!r}, {self.duration:.2f} s, {self.bpm:.4g} bpm, seed {self.seed}, "
            f"{self.sample_rate} Hz {channels})"
        )

    def _repr_html_(self) -> str:
        """A player under the coloured spectrogram, and the facts, in one snippet that needs no other file."""
        with tempfile.TemporaryDirectory() as folder:
            wav = self.save(Path(folder) / "clip.wav").read_bytes()
        image = paint(self.image, width=1200, height=256, dark=self.config.amplitude == "decibel")
        facts = (f"seed {self.seed}", f"{self.bpm:g} bpm", f"{self.duration:.2f} s")
        return show_sound(wav, self.prompt, image=image, facts=facts, loop=bool(self.settings.get("loop"))).html


@dataclasses.dataclass(repr=False)
class RiffOutput:
    """The clips of one call; it can be iterated and indexed.

    Attributes:
        clips: in the order of the prompts, the waveforms of one prompt side by side.
        sample_rate: samples per second.
    """

    clips: list[Clip]
    sample_rate: int

    sampling_rate = renamed_property("sampling_rate", "sample_rate")

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

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)

    @overload
    def __getitem__(self, place: int) -> Clip: ...

    @overload
    def __getitem__(self, place: slice) -> list[Clip]: ...

    def __getitem__(self, place: int | slice) -> Clip | list[Clip]:
        return self.clips[place]

    def __repr__(self) -> str:
        return f"RiffOutput({len(self.clips)} clip{'s' if len(self.clips) != 1 else ''}, {self.sample_rate} Hz)"


def image_to_waveform(
    image: Tensor,
    config: SpectrogramConfig,
    *,
    bpm: float | TempoMap,
    seed: int,
    quality: Quality = "default",
    loop: bool = False,
    vocoder: Vocoder | None = None,
) -> Tensor:
    """The sound ``(C, T)`` of a generated image ``(C, M, N)``, no louder than a file can hold.

    The power scale does not keep the level of a clip, so it is normalized to a peak; the decibel scale keeps it, and is
    only kept from clipping.
    """
    waveform = mel_to_waveform(
        image_to_mel(image, config),
        config,
        bpm=bpm,
        quality=quality,
        loop=loop,
        generator=seeded_generator(seed),
        vocoder=vocoder,
    )
    if config.amplitude == "power" or float(waveform.abs().max()) > PEAK:
        return peak_normalize(waveform, peak=PEAK)
    return waveform
