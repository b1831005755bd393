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
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.png import read_png
from riff.tasks.provenance import read_sound_tags
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
            sys.executable, "-m", "riff.apps.server.decoder", kind, str(source), str(target), *map(str, limits),
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
