"""riff's own tagger: the genre, the instruments, the lead and the key of music, without a download.

It was trained on music that riff's composer wrote and a General MIDI soundfont played, and on nothing else: of recorded
music it names what is most like it among the things it knows, however high the probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from riff.audio.channels import to_mono
from riff.spectrogram.config import SpectrogramConfig
from riff.utils.errors import RiffError

if TYPE_CHECKING:
    from torch import Tensor

    from riff.music.tagger_net import Labels, TaggerNet, Verdict

BUNDLED = Path(__file__).parents[1] / "models" / "tagger.safetensors"


@dataclass(frozen=True)
class Tags:
    """The tags of a clip; each mapping is name to probability, the most probable first.

    Attributes:
        genres: add up to 1.
        instruments: each by itself, "drums" among them.
        leads: the instrument in front; add up to 1.
        keys: such as "F# minor"; add up to 1.
    """

    genres: dict[str, float]
    instruments: dict[str, float]
    leads: dict[str, float]
    keys: dict[str, float]

    @property
    def genre(self) -> str:
        """The most probable genre."""
        return next(iter(self.genres))

    @property
    def lead(self) -> str:
        """The most probable lead."""
        return next(iter(self.leads))

    @property
    def key(self) -> str:
        """The most probable key."""
        return next(iter(self.keys))


class Tagger:
    """A loaded tagger.

    Attributes:
        net: the network.
        config: of the images that it reads; riff-mini's.
    """

    def __init__(self, net: TaggerNet, config: SpectrogramConfig) -> None:
        self.net = net
        self.config = config

    @classmethod
    def load(cls, path: str | Path | None = None) -> Tagger:
        """Read a tagger.

        Args:
            path: a file that ``training.recipes.tagger`` wrote; None is the one in the package.

        Raises:
            ModelError: the file is missing, damaged or not a tagger.
        """
        from riff.music.tagger_net import load_net

        config = SpectrogramConfig()
        return cls(load_net(BUNDLED if path is None else Path(path), config), config)

    @property
    def labels(self) -> Labels:
        """The names it knows."""
        return self.net.labels

    def reads(self, config: SpectrogramConfig) -> bool:
        """Whether images of a config are like those of its training; their width and channels do not matter."""
        names = "sample_rate win_length n_mels f_min f_max mel_scale norm amplitude reference db_range grid"
        names += " frames_per_beat"
        return all(getattr(config, name) == getattr(self.config, name) for name in names.split())

    def tag_images(self, images: Tensor, columns: Sequence[int] | None = None) -> list[Tags]:
        """Tag images on riff-mini's beats grid.

        Args:
            images: (B, 1 or 2, M, N) in [0, 1], beginning with a bar; of two channels the first is read, which is the
                mid of a mid-side image. What is longer than 8 beats is read by windows, whose probabilities are
                averaged.
            columns: how many columns of each image hold music, where they were padded; None is all.

        Returns:
            Tags of each image.

        Raises:
            RiffError: images of another shape, or columns that are not theirs.
        """
        import torch

        windows, owners = self._windows(images, columns)
        if not owners:
            return []
        from riff.music.tagger_net import judge

        verdict = judge(self.net, windows)
        owner = torch.tensor(owners)
        return [self._tags(verdict, owner == index) for index in range(len(images))]

    def tag(self, waveform: Tensor, sample_rate: int, *, bpm: float | None = None) -> Tags:
        """Tag a sound.

        Its beats are tracked, and windows of two bars of 4 are averaged; where no beat is found an even grid at
        ``bpm``, or (with a warning) at 120, is used. The sound is brought to the level that the tagger knows.

        Args:
            waveform: (C, T) or (T,), one channel or two.
            sample_rate: samples per second, in Hz.
            bpm: the tempo if it is known, 20..400.

        Raises:
            RiffError: the sound is empty, silent, or holds NaN or infinite samples.
        """
        return self.tag_images(self.image_of(waveform, sample_rate, bpm=bpm)[None])[0]

    def embed(self, images: Tensor, columns: Sequence[int] | None = None) -> Tensor:
        """The features that give genre and instruments, (B, 2048), averaged over windows; as for tag_images."""
        import torch

        from riff.music.tagger_net import embed

        windows, owners = self._windows(images, columns)
        features, owner = embed(self.net, windows), torch.tensor(owners)
        return torch.stack([features[owner == index].mean(0) for index in range(len(images))])

    def image_of(
        self, waveform: Tensor, sample_rate: int, *, bpm: float | None = None, downbeat: float | None = None
    ) -> Tensor:
        """The image (1, M, N) by which :meth:`tag` reads a sound, from the bar it begins in; arguments as there.

        With ``downbeat``, seconds to a first beat of a bar, and ``bpm`` nothing is tracked.
        """
        import torch

        from riff.music.alignment import Recording, align_to_grid
        from riff.spectrogram.image import mel_to_image
        from riff.spectrogram.mel import waveform_to_mel

        mono = to_mono(torch.atleast_2d(waveform.detach()).float()).cpu()
        if mono.numel() == 0 or not bool(torch.isfinite(mono).all()):
            raise RiffError("a sound to be tagged is empty or holds NaN or infinite samples; use another")
        if float(mono.abs().max()) < 1e-4:
            raise RiffError("a silent sound cannot be tagged; use one with music in it")
        aligned = align_to_grid(Recording(mono, sample_rate), self.config, bpm=bpm, downbeat=downbeat, beats_per_bar=4)
        return mel_to_image(waveform_to_mel(aligned.waveform[0], self.config, bpm=aligned.tempo), self.config)

    def _windows(self, images: Tensor, columns: Sequence[int] | None) -> tuple[Tensor, list[int]]:
        """Pieces of images, (n, M, 256), and which image each is of."""
        import torch

        from riff.music.tagger_net import WINDOW

        rows = self.config.n_mels
        if images.ndim != 4 or images.shape[1] not in (1, 2) or images.shape[2] != rows or not images.shape[3]:
            raise RiffError(f"images have shape {tuple(images.shape)}; the tagger reads (B, 1 or 2, {rows}, N)")
        lengths = [images.shape[-1]] * len(images) if columns is None else list(columns)
        if len(lengths) != len(images) or not all(0 < length <= images.shape[-1] for length in lengths):
            raise RiffError(f"columns are {lengths}; give 1 to {images.shape[-1]} for each of {len(images)} images")
        windows, owners = [], []
        for index, length in enumerate(lengths):
            # A last stub of less than a bar says little.
            count = max(1, (length + WINDOW // 2) // WINDOW)
            padded = torch.nn.functional.pad(images[index, 0, :, :length], (0, max(0, count * WINDOW - length)))
            windows += list(padded[:, : count * WINDOW].split(WINDOW, dim=-1))
            owners += [index] * count
        return torch.stack(windows) if windows else images[:, 0], owners

    def _tags(self, verdict: Verdict, chosen: Tensor) -> Tags:
        """The mean over the chosen windows."""
        from riff.music.theory import KEYS

        labels = self.labels
        return Tags(
            _ranked(labels.genres, verdict.genre[chosen].softmax(1).mean(0)),
            _ranked(labels.instruments, verdict.instruments[chosen].sigmoid().mean(0)),
            _ranked(labels.leads, verdict.lead[chosen].softmax(1).mean(0)),
            _ranked(KEYS, verdict.key[chosen].softmax(1).mean(0)),
        )


def _ranked(names: Sequence[str], probabilities: Tensor) -> dict[str, float]:
    pairs = zip(names, probabilities.tolist(), strict=True)
    return dict(sorted(pairs, key=lambda pair: -pair[1]))
