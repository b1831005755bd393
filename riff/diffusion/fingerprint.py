"""Which weights made a clip: hashes of a checkpoint's files and of LoRAs, which the files record."""

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from riff.diffusion.hub import WEIGHTS, find_weights, locate, weights_files
from riff.diffusion.lora import find_lora
from riff.utils.errors import ModelError

# Files up to this size are read whole. A larger one takes seconds, so a fair sample of it is read: a file that was
# trained on has changed everywhere, and a single changed bit need not be found.
WHOLE_BYTES = 256 << 20
_ENDS = 1 << 20
_SAMPLES = 1024
_SAMPLE_BYTES = 64 << 10


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A LoRA on top of a model.

    Attributes:
        name: its file's name without the suffix, or its folder's name.
        digest: :func:`lora_hash`.
        weight: how much of it.
    """

    name: str
    digest: str
    weight: float


class CheckpointOrigin:
    """Where a pipeline's weights came from. The hash is computed at its first use, and kept.

    Attributes:
        place: the checkpoint's folder or file; None for a model that was never in one.
        variant: weights that were preferred, e.g. "fp16".
        adapters: LoRAs in the order in which they were loaded.
    """

    def __init__(self, place: Path | None = None, variant: str | None = None) -> None:
        self.place = place
        self.variant = variant
        self.adapters: tuple[Adapter, ...] = ()

    @functools.cached_property
    def model_hash(self) -> str | None:
        """:func:`model_hash`; None where the files are unknown or gone."""
        try:
            return None if self.place is None else model_hash(self.place, variant=self.variant)
        except (ModelError, OSError):
            return None

    def add_lora(self, path: Path, weight: float) -> None:
        """Note a LoRA that was loaded."""
        name = path.resolve().name if path.is_dir() else path.stem
        self.adapters = (*self.adapters, Adapter(name, lora_hash(path), weight))


def find_origin(
    source: str | Path | None, *, revision: str | None = None, variant: str | None = None
) -> CheckpointOrigin:
    """The origin of a checkpoint that has just been loaded, as :func:`riff.diffusion.hub.locate` finds it without network."""  # noqa: E501
    try:
        return CheckpointOrigin(locate(source, revision=revision, local_files_only=True, variant=variant), variant)
    except ModelError:
        return CheckpointOrigin()


def model_hash(place: Path, *, variant: str | None = None) -> str:
    """A hash of a checkpoint's weights, configurations and vocabulary.

    SHA-256 over the name and the :func:`file_hash` of each file that is loaded, in the order of the names. Files
    without a part in the music, such as a README or the index with its library versions, are left out.

    Args:
        place: a folder, or a single file with its ``spectrogram_config.json`` beside it.
        variant: weights to prefer, as they were loaded.

    Returns:
        64 hexadecimal digits. riff-mini takes 0.1 s.

    Raises:
        ModelError: weights are missing.
    """
    folder = place if place.is_dir() else place.parent
    files = [place] if place.is_file() else _loaded_files(place, variant)
    files += [
        path for path in (folder / "spectrogram_config.json", folder / "music_prior.safetensors") if path.is_file()
    ]
    total = hashlib.sha256()
    for path in sorted(files):
        # A single file may be called anything.
        name = "" if path == place else path.relative_to(folder).as_posix()
        total.update(f"{name}\0{file_hash(path)}\n".encode())
    return total.hexdigest()


def lora_hash(path: Path) -> str:
    """A hash of a LoRA's weights and of the learned words beside them: of a single file simply its SHA-256."""
    digests = [file_hash(file) for file in find_lora(path) if file is not None]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file of up to 256 MB; of a larger one that of its size and samples.

    The samples are its first and last MB (the first of a safetensors file names all tensors) and 1024 blocks of 64 kB,
    evenly spaced. A file is not read again while its size and time of change stay the same.
    """
    path = path.resolve()
    status = path.stat()
    return _file_hash(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _file_hash(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        if size <= WHOLE_BYTES:
            return hashlib.file_digest(file, "sha256").hexdigest()
        return _sampled(file, size)


def _sampled(file: BinaryIO, size: int) -> str:
    total = hashlib.sha256(f"sampled {size}\n".encode())
    total.update(file.read(_ENDS))
    for number in range(_SAMPLES):
        file.seek(number * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
        total.update(file.read(_SAMPLE_BYTES))
    file.seek(size - _ENDS)
    total.update(file.read(_ENDS))
    return total.hexdigest()


def sound_hash(waveform: Tensor, sample_rate: int) -> str:
    """SHA-256 of a sound, whatever file it came from: its rate, shape and samples ``(C, T)``."""
    samples = waveform.detach().float().cpu().contiguous().numpy().astype("<f4", copy=False)
    total = hashlib.sha256(f"{sample_rate} {samples.shape[0]} {samples.shape[1]}\n".encode())
    total.update(samples.tobytes())
    return total.hexdigest()


def _loaded_files(folder: Path, variant: str | None) -> list[Path]:
    files = [*(folder / "tokenizer").glob("*.json"), *(folder / "tokenizer").glob("*.txt")]
    files += [path for path in folder.glob("*/config.json") if path.parent.name in WEIGHTS]
    files += (folder / "scheduler").glob("scheduler_config.json")
    for component in WEIGHTS:
        found = find_weights(folder, component, variant=variant, source=str(folder))
        files += weights_files(folder, component, found)
    return files
