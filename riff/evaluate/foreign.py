"""Networks of others as embeddings: CLAP and EnCodec, through transformers, from a folder or the local cache.

Nothing is fetched unless that is asked for, and weights are read as safetensors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from riff.components import quiet_libraries
from riff.errors import ModelError
from riff.evaluate.embeddings import Embedding
from riff.evaluate.sounds import Sound

if TYPE_CHECKING:
    from transformers import ClapModel, ClapProcessor

CLAP = "laion/larger_clap_music"  # Apache-2.0
ENCODEC = "facebook/encodec_32khz"
WINDOW = 10.0  # seconds that CLAP hears at once


class Clap:
    """A loaded CLAP, which knows sounds and texts in one space (Wu et al. 2023).

    Attributes:
        model: of transformers.
        processor: its tokenizer and filters.
        name: of the checkpoint, as it stands in the names of scores.
    """

    def __init__(self, model: ClapModel, processor: ClapProcessor, name: str) -> None:
        self.model = model
        self.processor = processor
        self.name = name

    @classmethod
    def load(cls, source: str | Path = CLAP, *, download: bool = False) -> Clap:
        """Read a CLAP.

        Args:
            source: a folder, or the name of a repository on the hub.
            download: whether it may be fetched if it is not in the cache.

        Raises:
            ModelError: it is not there, has no safetensors, or is no CLAP.
        """
        from transformers import ClapModel, ClapProcessor

        model = _loaded(ClapModel, source, download)
        processor = _loaded(ClapProcessor, source, download)
        return cls(model.eval(), processor, f"CLAP {_name(source)}")

    @torch.inference_mode()
    def hear(self, sound: Sound) -> np.ndarray:
        """The embedding of a sound, the mean over 10 s windows, of length 1, (d,)."""
        extractor = self.processor.feature_extractor
        mono = _at_rate(sound, int(extractor.sampling_rate))[0].numpy()
        size = round(WINDOW * extractor.sampling_rate)
        # A last piece of less than a second says little beside whole windows.
        pieces = [mono[at : at + size] for at in range(0, max(1, len(mono) - extractor.sampling_rate), size)]
        inputs = extractor(pieces, sampling_rate=extractor.sampling_rate, return_tensors="pt", truncation="rand_trunc")
        return _direction(_pooled(self.model.get_audio_features(**inputs)).mean(0))

    @torch.inference_mode()
    def read(self, texts: Sequence[str]) -> np.ndarray:
        """The embeddings of texts, of length 1, (n, d)."""
        inputs = self.processor.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return np.stack([_direction(row) for row in _pooled(self.model.get_text_features(**inputs))])

    @property
    def embedding(self) -> Embedding:
        """For distances between sets."""
        return Embedding(self.name, self.hear)


def encodec_embedding(source: str | Path = ENCODEC, *, download: bool = False) -> Embedding:
    """The output of EnCodec's encoder (Défossez et al. 2022), its mean over time.

    Args:
        source: a folder, or the name of a repository on the hub.
        download: whether it may be fetched if it is not in the cache.

    Raises:
        ModelError: it is not there, has no safetensors, or is no EnCodec.
    """
    from transformers import EncodecModel

    model = _loaded(EncodecModel, source, download).eval()

    @torch.inference_mode()
    def of(sound: Sound) -> np.ndarray:
        samples = _at_rate(sound, int(model.config.sampling_rate)).expand(model.config.audio_channels, -1)
        encoded = model.encoder(samples[None])[0]
        return np.asarray(encoded.float().mean(-1), dtype=np.float64)

    return Embedding(f"EnCodec {_name(source)}", of)


def _loaded(kind: Any, source: str | Path, download: bool) -> Any:
    arguments: dict[str, Any] = {} if "Processor" in kind.__name__ else {"use_safetensors": True}
    try:
        with quiet_libraries():
            return kind.from_pretrained(str(source), local_files_only=not download, **arguments)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        way = "give a folder that holds it with model.safetensors, or allow the download"
        raise ModelError(f"{source} cannot be used as {kind.__name__} ({reason}); {way}") from error


def _name(source: str | Path) -> str:
    return Path(source).name if Path(source).exists() else str(source)


def _at_rate(sound: Sound, rate: int) -> Tensor:
    from riff.audio import resample

    return resample(sound.mono[None], sound.sample_rate, rate)


def _pooled(output: Any) -> Tensor:
    """What transformers returns as a tensor in one version and as an output with one in another."""
    tensor: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return tensor.float()


def _direction(vector: Tensor) -> np.ndarray:
    return np.asarray(torch.nn.functional.normalize(vector, dim=-1), dtype=np.float64)
