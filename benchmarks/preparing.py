"""Section "prepare": how many seconds of music ``riff prepare`` makes into a data set in a second."""

import tempfile
import time
from pathlib import Path

from benchmarks.harness import Figures, measure_alone
from benchmarks.history import Section
from riff.utils.parallel import peak_memory_mib


def prepare_section(*, files: int, seconds: float) -> Section:
    """Prepare some files on one core, then on all of them.

    Args:
        files: how many.
        seconds: length of each.
    """
    figures: Figures = {"files": files, "music_s": files * seconds}
    with tempfile.TemporaryDirectory() as folder:
        write_music(Path(folder) / "music", files=files, seconds=seconds)
        for name, workers in (("one_process", 0), ("all_cores", None)):
            arguments = {"music": f"{folder}/music", "dataset": f"{folder}/{name}", "workers": workers}
            found = measure_alone("benchmarks.preparing:measure", arguments)
            spent = float(found["seconds"] or 1.0)
            figures[f"{name}_music_per_second"] = files * seconds / spent
            figures[f"{name}_s"] = spent
            figures[f"{name}_clips"] = found["clips"]
            if workers == 0:  # that of several processes is not in one figure
                figures[f"{name}_peak_memory_mib"] = found["peak_memory_mib"]
    notes = ["All of it: reading, beat tracking, cutting, drawing, the search for copies and the report; no captions."]
    return Section("prepare", figures=figures, notes=notes)


def write_music(folder: Path, *, files: int, seconds: float) -> None:
    """Tunes as WAV files, all different, so that none is left out as a copy of another."""
    from benchmarks.tune import tune
    from riff.audio.io import save_audio

    folder.mkdir()
    for number in range(files):
        save_audio(folder / f"{number:02d}.wav", tune(seconds, 44100, seed=number), 44100)


def measure(*, music: str, dataset: str, workers: int | None) -> Figures:
    """Prepare ``music`` in this process, or in one process a core where ``workers`` is None."""
    from riff.train.data.prepare import prepare
    from riff.train.data.settings import PrepareSettings

    began = time.perf_counter()
    report = prepare(music, dataset, PrepareSettings(), workers=workers)
    return {"seconds": time.perf_counter() - began, "clips": report.clips, "peak_memory_mib": peak_memory_mib()}
