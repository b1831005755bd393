"""Run as ``python -m riff.apps.server.decoder``: decodes one uploaded file in a process that can do nothing else.

What decoders get wrong stays in here: this process has little memory and time, may write one file of bounded size,
and returns plain numbers, or an image that was written again. It imports no torch, which needs more memory than that.
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from riff.audio.reader import open_sound
from riff.audio.tags import read_wav_texts
from riff.utils.errors import RiffError

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
    """Write a sound file's samples ``(C, T)`` float32, one channel or two, to a .npy file."""
    import numpy as np

    from riff.audio.channels import mix_gains

    with open_sound(source) as sound:
        rate, texts = sound.sample_rate, sound.texts()
        most = int(min(max_seconds * rate, max_bytes / (4 * sound.channels)))
        frames = most + 1 if sound.frames is None else sound.frames
        samples = sound.read(0, frames).T if frames <= most + 1 else None
    if samples is None or samples.shape[1] > most:
        raise RiffError(f"the recording is longer than the {max_seconds:g} s that this server accepts")
    if samples.shape[1] == 0:
        raise RiffError("the recording holds no sound (0 samples)")
    if not np.isfinite(samples).all():
        raise RiffError("the recording holds NaN or infinite samples; repair it first")
    if len(samples) > 2:
        gains = mix_gains(len(samples), 1 if sound.layout is None else 2, sound.layout)
        samples = np.array(gains, np.float32) @ samples
    if sound.container == "WAV":
        texts = read_wav_texts(source)
    peak = float(np.abs(samples).max())
    np.save(target, samples / peak if peak > 1.0 else samples)
    comment = str(texts.get("comment", ""))  # where riff says how it made a file
    return {"rate": rate, "comment": comment if len(comment) <= _MAX_TEXT else "", "faults": sound.faults[:3]}


def decode_image(source: Path, target: Path) -> dict[str, Any]:
    """Write an image again as a PNG with its description, and nothing else of what it carried."""
    import PIL.Image
    from PIL.PngImagePlugin import PngInfo

    PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with PIL.Image.open(source, formats=["PNG", "JPEG", "WEBP"]) as image:
            if image.width * image.height > MAX_PIXELS or image.height > MAX_HEIGHT:
                size = f"{image.width} x {image.height}"
                raise RiffError(f"the image is {size}; at most {MAX_HEIGHT} rows and {MAX_PIXELS} pixels are accepted")
            image.load()
            text = str(getattr(image, "text", {}).get("riff", ""))
            exif = PIL.Image.Exif()
            with contextlib.suppress(Exception):  # damaged EXIF does not make the pixels unreadable
                exif.update({tag: value for tag, value in image.getexif().items() if tag in _RIFFUSION_TAGS})
            plain = image if image.mode in ("L", "RGB", "I;16", "I") else image.convert("RGB")
            chunks = PngInfo()
            if text and len(text) <= _MAX_TEXT:
                chunks.add_text("riff", text)
            plain.save(target, format="PNG", pnginfo=chunks, exif=exif)
    except RiffError:
        raise
    except Exception:
        raise RiffError("the image is damaged, too large or of another kind; send a PNG, JPEG or WebP") from None
    return {}


def main(words: list[str]) -> int:
    """Decode ``kind source target memory seconds max_bytes max_seconds`` and print facts, or the error, as JSON."""
    kind, source, target, memory, seconds, max_bytes, max_seconds = words
    limit_process(int(memory), int(seconds), int(max_bytes) + 4096)
    try:
        if kind == "audio":
            facts = decode_sound(Path(source), Path(target), float(max_seconds), int(max_bytes))
        else:
            facts = decode_image(Path(source), Path(target))
    except RiffError as error:
        facts = {"error": str(error)}
    except MemoryError:
        facts = {"error": "the file needs more memory than an upload may"}
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
