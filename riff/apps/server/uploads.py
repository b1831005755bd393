"""Files that strangers send: decoded in a separate, limited process, and known by no name of theirs."""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riff.apps.server.settings import MB, ApiError, Settings, human
from riff.audio.formats import sniff_container
from riff.audio.tags import read_wav_texts
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.png import read_png
from riff.tasks.provenance import read_sound_tags
from riff.utils.errors import RiffError
from riff.utils.validation import BPM_RANGE

MAX_DECODED = 200 * MB
_MEMORY = 2048 * MB
_CPU_S = 30
_WALL_S = 60.0
_AT_ONCE = 2
# All that the decoder may know of this process's environment.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "SYSTEMROOT", "TEMP", "TMPDIR")
# Waveform (C, T), samples per second, and the tempo that riff wrote into its own file.
Sound = tuple[Tensor, int, float | None]
Picture = tuple[Tensor, SpectrogramConfig, dict[str, Any]]


class Uploads:
    """The decoders of one server."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def open(self, content: bytes, kind: str) -> Any:
        """A file's content: a :data:`Sound`, or ``(image, config, metadata)``.

        Args:
            content: the file.
            kind: "audio" or "picture".

        Raises:
            Refusal: 422, it cannot be read, or is too large.
        """
        if not content:
            raise ApiError(422, f"{kind} is empty (0 bytes)")
        async with self._places:
            with tempfile.TemporaryDirectory(prefix="riff-upload-") as folder:
                source = Path(folder) / "upload"
                target = Path(folder) / ("plain.npy" if kind == "audio" else "plain.png")
                await asyncio.to_thread(source.write_bytes, content)
                facts = await self._decode(kind, source, target)
                if "error" in facts:
                    message = str(facts["error"]).replace(str(source), f"the {kind}")
                    raise ApiError(422, human(message))
                if kind == "audio":
                    waveform = torch.from_numpy(np.load(target, allow_pickle=False))
                    return waveform, int(facts["rate"]), _own_tempo(str(facts["comment"]))
                return await asyncio.to_thread(read_png, target)

    async def _decode(self, kind: str, source: Path, target: Path) -> dict[str, Any]:
        limits = (_MEMORY, _CPU_S, MAX_DECODED, self.settings.max_seconds)
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "riff.apps.server.uploads", kind, str(source), str(target), *map(str, limits),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            told, _ = await asyncio.wait_for(child.communicate(), _WALL_S)
        except TimeoutError:
            raise ApiError(422, f"the {kind} takes too long to read") from None
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
        try:
            facts = json.loads(told)
        except ValueError:
            # It died of a limit or of a decoder's error.
            raise ApiError(422, f"the {kind} cannot be read; it is damaged or too large") from None
        return facts if isinstance(facts, dict) else {}


def _own_tempo(comment: str) -> float | None:
    """The tempo of a file that riff made at one tempo from its first sample on."""
    made = read_sound_tags({"comment": comment})
    if "timeline" in made or "task" in made:
        return None
    try:
        bpm = float(made.get("bpm", ""))
    except ValueError:
        return None
    return bpm if BPM_RANGE[0] <= bpm <= BPM_RANGE[1] else None


# WAS riff/server/decoder.py: Run as ``python -m riff.apps.server.uploads``: decodes one stranger's file in a
# process that can do nothing else.
#
# What decoders get wrong stays in here: this process has little memory and time, may write one file of bounded
# size,
# and hands out plain numbers, or a picture that was written anew.

MAX_CHANNELS = 8
MAX_PIXELS = 1 << 22
MAX_HEIGHT = 1024
_MAX_TEXT = 200_000
_RIFFUSION_TAGS = range(11000, 11081)


def limit_process(memory: int, seconds: int, file_bytes: int) -> None:
    """Bound this process's memory and output in bytes and its processor time in seconds, where the system can."""
    try:
        import resource
    except ImportError:  # no POSIX: the wall clock of the parent is left
        return
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def decode_sound(source: Path, target: Path, max_seconds: float, max_bytes: int) -> dict[str, Any]:
    """Write a sound file's samples ``(C, T)`` float32, one channel or two, to a .npy file.

    Raises:
        RiffError: it is none, is of a kind that is not let through, or is too long.
    """
    container = sniff_container(source)
    import numpy as np
    import soundfile

    try:
        with soundfile.SoundFile(str(source)) as file:
            rate, channels, frames = file.samplerate, file.channels, file.frames
            if not 1000 <= rate <= 768_000 or not 1 <= channels <= MAX_CHANNELS:
                raise RiffError(f"the recording claims {rate} samples a second in {channels} channels")
            if frames > max_seconds * rate or frames * channels * 4 > max_bytes:
                raise RiffError(f"the recording is longer than the {max_seconds:g} s that are taken")
            samples = file.read(frames, dtype="float32", always_2d=True).T
            texts = read_wav_texts(source) if container == "WAV" else file.copy_metadata()
    except soundfile.SoundFileError:
        raise RiffError("the recording is damaged; send a WAV, FLAC, OGG, MP3 or AIFF file that plays") from None
    if samples.shape[1] == 0:
        raise RiffError("the recording holds no sound (0 samples)")
    if not np.isfinite(samples).all():
        raise RiffError("the recording holds NaN or infinite samples; repair it first")
    if samples.shape[0] > 2:
        samples = samples.mean(axis=0, keepdims=True)
    peak = float(np.abs(samples).max())
    np.save(target, samples / peak if peak > 1.0 else samples)
    comment = str(texts.get("comment", ""))  # where riff says how it made a file
    return {"rate": rate, "comment": comment if len(comment) <= _MAX_TEXT else ""}


def decode_picture(source: Path, target: Path) -> dict[str, Any]:
    """Write a picture anew as a PNG with its description, and nothing else of what it carried.

    Raises:
        RiffError: it is no PNG, JPEG or WebP, or is too large.
    """
    import PIL.Image
    from PIL.PngImagePlugin import PngInfo

    PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with PIL.Image.open(source, formats=["PNG", "JPEG", "WEBP"]) as picture:
            if picture.width * picture.height > MAX_PIXELS or picture.height > MAX_HEIGHT:
                size = f"{picture.width} x {picture.height}"
                raise RiffError(f"the picture is {size}; at most {MAX_HEIGHT} rows and {MAX_PIXELS} pixels are taken")
            picture.load()
            text = str(getattr(picture, "text", {}).get("riff", ""))
            exif = PIL.Image.Exif()
            with contextlib.suppress(Exception):  # a stranger's damaged EXIF does not stand in the way of the pixels
                exif.update({tag: value for tag, value in picture.getexif().items() if tag in _RIFFUSION_TAGS})
            plain = picture if picture.mode in ("L", "RGB", "I;16", "I") else picture.convert("RGB")
            chunks = PngInfo()
            if text and len(text) <= _MAX_TEXT:
                chunks.add_text("riff", text)
            plain.save(target, format="PNG", pnginfo=chunks, exif=exif)
    except RiffError:
        raise
    except Exception:
        raise RiffError("the picture is damaged, too large or of another kind; send a PNG, JPEG or WebP") from None
    return {}


def main(words: list[str]) -> int:
    """Decode ``kind source target memory seconds max_bytes max_seconds`` and print facts, or the error, as JSON."""
    kind, source, target, memory, seconds, max_bytes, max_seconds = words
    limit_process(int(memory), int(seconds), int(max_bytes) + 4096)
    try:
        if kind == "audio":
            facts = decode_sound(Path(source), Path(target), float(max_seconds), int(max_bytes))
        else:
            facts = decode_picture(Path(source), Path(target))
    except RiffError as error:
        facts = {"error": str(error)}
    except MemoryError:
        facts = {"error": "the file needs more memory than an upload may"}
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
