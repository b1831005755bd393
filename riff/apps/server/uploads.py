"""Files that clients send: decoded in a separate, limited process, and known by no name of theirs."""

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riff.apps.server.jobs import TOO_LATE
from riff.apps.server.settings import MB, ApiError, Settings, human
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.png import read_png
from riff.tasks.provenance import read_sound_tags
from riff.tasks.requests import Bpm
from riff.utils.errors import RiffError
from riff.utils.schema import check_value

MAX_DECODED = 200 * MB
_MEMORY = 2048 * MB
_CPU_S = 30
_WALL_S = 60.0
_AT_ONCE = 2
# All that the decoder may know of this process's environment.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "SYSTEMROOT", "TEMP", "TMPDIR")
# Image (C, M, N), its config, and its metadata.
Image = tuple[Tensor, SpectrogramConfig, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class UploadedSound:
    """A recording (C, T), with the tempo that riff wrote into its own file, and what is wrong with the file."""

    waveform: Tensor
    sample_rate: int
    bpm: float | None
    faults: list[str]


class Uploads:
    """The decoders of one server."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def open(self, content: bytes, kind: str, *, deadline: float) -> UploadedSound | Image:
        """A file's content, of "audio" or an "image"; 422 if it cannot be read, 504 if its turn does not come in time."""  # noqa: E501
        if not content:
            raise ApiError(422, f"the {kind} is empty (0 bytes)")
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())), self._places:
                with tempfile.TemporaryDirectory(prefix="riff-upload-") as folder:
                    return await self._open(content, kind, Path(folder))
        except TimeoutError:
            raise ApiError(504, TOO_LATE) from None

    async def _open(self, content: bytes, kind: str, folder: Path) -> UploadedSound | Image:
        source, target = folder / "upload", folder / ("plain.npy" if kind == "audio" else "plain.png")
        await asyncio.to_thread(source.write_bytes, content)
        facts = await self._decode(kind, source, target)
        if "error" in facts:
            raise ApiError(422, human(str(facts["error"]).replace(str(source), f"the {kind}")))
        if kind == "audio":
            waveform = torch.from_numpy(np.load(target, allow_pickle=False))
            return UploadedSound(waveform, int(facts["rate"]), _own_tempo(str(facts["comment"])), list(facts["faults"]))
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
            printed, _ = await asyncio.wait_for(child.communicate(), _WALL_S)
        except TimeoutError:
            raise ApiError(422, f"the {kind} takes too long to read") from None
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
        try:
            facts = json.loads(printed)
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
        return float(check_value(float(made.get("bpm", "")), Bpm, "bpm"))
    except (ValueError, RiffError):
        return None
