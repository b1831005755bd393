"""The benchmark measures what it says, on a model in miniature."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from riff.bench import STAGES, bench, measure
from riff.cli import main
from riff.errors import ModelError

ROOT = Path(__file__).parent.parent


def test_every_figure_is_measured_and_the_ratios_fit(mini_checkpoint) -> None:
    figures = measure(model=str(mini_checkpoint), device="cpu", steps=2, repeat=2)
    assert all(figures[f"{stage}_s"] > 0 for stage in STAGES)
    assert figures["music_per_work"] == pytest.approx(figures["music_s"] / figures["render_s"])
    assert figures["real_time_factor"] == pytest.approx(1 / figures["music_per_work"])
    assert figures["peak_memory_mib"] is None or 50 < figures["peak_memory_mib"] < 8000
    assert (figures["device"], figures["steps"]) == ("cpu", 2)
    # A beat of 84 bpm lasts 60/84 s and the picture is eight beats wide.
    assert figures["music_s"] == pytest.approx(8 * 60 / 84, abs=1e-3)


@pytest.mark.slow
def test_a_cold_start_is_measured_in_processes_of_their_own(mini_checkpoint, capsys) -> None:
    assert main(["bench", "--model", str(mini_checkpoint), "--steps", "1", "--repeat", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["help_s"] < figures["import_s"] + figures["load_s"] < figures["cold_start_to_file_s"]


def test_the_command_prints_one_aligned_line_per_figure(monkeypatch, capsys) -> None:
    figures = {"model": "riff-mini", "render_s": 1.23456, "steps": 20, "peak_memory_mib": None}
    asked = {}
    monkeypatch.setattr("riff.bench.bench", lambda **options: asked.update(options) or figures)
    assert main(["bench", "--steps", "7", "--repeat", "2", "--device", "cpu"]) == 0
    assert asked == {"model": None, "device": "cpu", "steps": 7, "repeat": 2}
    assert capsys.readouterr().out.splitlines() == [
        "model            riff-mini",
        "render_s         1.235",
        "steps            20",
        "peak_memory_mib  not measured",
    ]
    assert main(["bench", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == figures


def test_peak_memory_counts_what_was_given_back() -> None:
    code = """if True:
        from riff.bench import _peak_memory
        before = _peak_memory()
        block = bytearray(b"x") * (200 << 20)
        del block
        print(before is None or 190 < _peak_memory() - before < 230)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_a_model_that_cannot_be_loaded_is_the_same_error_as_in_a_render(tmp_path) -> None:
    with pytest.raises(ModelError, match="no such model"):
        bench(model="no such model", steps=1, repeat=1)
