"""Scoreboard and README say what their sources say, and the recipe for MusicCaps runs as it stands."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from benchmarks import plot_bench
from benchmarks.harness import Ratio
from benchmarks.history import Bench, Section, load_history, save_bench
from benchmarks.plot import picture
from riff.utils.errors import RiffError
from training.measure import scoreboard
from training.measure.scoreboard import CONTROL, MUSIC_CAPS, SPEED

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "evaluate_riffusion.sh"
MACHINE = {"processor": "AMD EPYC", "cores": 2, "threads": 2, "accelerator": None, "packages": {"torch": "2.14"}}
CARD = """
`python -m training.measure.riff_mini --prompts 60`, 60 prompts, on the CPU:

| what | value | 95 % interval | clips | target | met |
|---|---|---|---|---|---|
| generated: genre (plain) | 0.950 | 0.863..0.983 | 60 | >= 92% | yes |
| generated: lead instrument | 0.483 | 0.362..0.607 | 60 | >= 75% | NO |
| VAE round trip PSNR (dB) | 26.114 |  | 60 | >= 26 | yes |
"""


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(version: str, when: str, *, speed: float = 39.0, noisy: bool = False, quick: bool = False) -> Bench:
    ratio = Ratio.of(
        "sound_speed_default", "as fast as Riffusion's algorithm", [speed - 1, speed, speed + 2], processor=[speed / 2]
    )
    share = Ratio.of("sound_memory", "of the memory that it takes", [0.5], times=False)
    sections = [Section("sound", [ratio, share]), Section("render", [], {"render_s": 1.49, "step_s": 0.0591})]
    settings = {"model": "riff-mini", "quick": quick, "steps": 20}
    return Bench(version, when, MACHINE | {"noisy": noisy}, settings, sections)


@pytest.fixture
def history(tmp_path) -> Path:
    for bench in (
        run("0.0.9", "2026-10-01T08:00:00+00:00"),
        run("0.1.0", "2026-11-01T08:00:00+00:00", speed=41.0),
        run("0.1.0", "2026-11-02T08:00:00+00:00", speed=20.0, noisy=True),
        run("0.1.0", "2026-11-03T08:00:00+00:00", speed=30.0, quick=True),
    ):
        save_bench(bench, tmp_path / "results")
    return tmp_path / "results"


def test_the_page_is_what_its_sources_say(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert scoreboard.main(["--check"]) == 0, "run: python -m training.measure.scoreboard"


def test_the_figures_of_speed_are_what_the_benchmarks_say(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert plot_bench.main(["--check"]) == 0, "run: python -m benchmarks.plot_bench"


def test_figures_are_taken_from_the_card_with_their_intervals() -> None:
    page = scoreboard.scoreboard(CARD, [], {})
    assert "| genre recognised, of 30 | 95 % | 86 to 98 | 60 | >= 92% |" in page
    assert "| asked lead instrument recognised | 48 % | 36 to 61 | 60 | >= 75% (missed) |" in page
    assert "| autoencoder round trip, PSNR in dB | 26.1 |  | 60 | >= 26 |" in page
    assert "60 prompts, on the CPU (its model card" in page
    with pytest.raises(RiffError, match="the model card has no table"):
        scoreboard.scoreboard("no table", [], {})


def test_every_published_figure_has_a_source_and_a_sentence_on_what_it_compares_to() -> None:
    page = scoreboard.scoreboard(CARD, [], {})
    rows = [*MUSIC_CAPS, *CONTROL, *SPEED]
    assert any(row.model == "Riffusion v1" and row.fad == 14.8 for row in MUSIC_CAPS)
    for row in rows:
        assert row.source and row.comparable.endswith(".") and "omparable" in row.comparable + "Comparable"
        assert row.source in page and row.comparable in page
        assert len(row.comparable.split()) > 6


def test_evaluations_on_musiccaps_are_shown_with_their_embedding(tmp_path) -> None:
    figures = [
        {"name": "Fréchet distance (CLAP x)", "value": 0.51, "low": 0.49, "high": 0.53, "n": 1000},
        {"name": "Tempo within 4 %", "value": 0.5, "low": None, "high": None, "n": 3},
    ]
    place = tmp_path / "riffusion-v1"
    place.mkdir()
    (place / "report.json").write_text(json.dumps({"sections": [{"figures": figures}]}))
    (place / "vggish.json").write_text(json.dumps({"fad": 13.456, "generated": 1000}))
    page = scoreboard.scoreboard(CARD, [], scoreboard.read_evaluations(tmp_path))
    assert "| riffusion-v1 | FAD (VGGish) | 13.46 |  | 1000 |" in page
    assert "| riffusion-v1 | Fréchet distance (CLAP x) | 0.51 | 0.49 to 0.53 | 1000 |" in page
    assert "Not yet" not in page and "Not yet" in scoreboard.scoreboard(CARD, [], {})


def test_speed_is_the_newest_versions_and_says_when_the_machine_was_busy(history) -> None:
    runs = load_history(history)
    page = scoreboard.scoreboard(CARD, runs, {})
    assert "riff 0.1.0, 2026-11-01" in page and "41x as fast as Riffusion's algorithm" in page
    assert "Other programs" not in page
    page = scoreboard.scoreboard(CARD, [run for run in runs if run["machine"]["noisy"]], {})
    assert "Other programs" in page and "10x as fast" in page and "20x as fast" not in page, "processor time then"


def test_a_quiet_whole_benchmark_of_the_newest_version_is_told_of(history) -> None:
    runs = load_history(history)
    assert plot_bench.newest(runs)["when"].startswith("2026-11-01")
    assert plot_bench.newest(runs[2:])["when"].startswith("2026-11-02"), "noisy rather than quick"
    with pytest.raises(RiffError, match="python -m benchmarks --save"):
        plot_bench.newest([])


def test_the_figures_on_the_page_are_replaced_and_nothing_else(history, tmp_path, capsys) -> None:
    page, drawn = tmp_path / "speed.md", tmp_path / "bench.svg"
    page.write_text(f"before\n{plot_bench.BEGIN}\nold\n{plot_bench.END}\nafter\n")
    words = ["--results", str(history), "--page", str(page), "--picture", str(drawn)]
    assert plot_bench.main([*words, "--check"]) == 1
    assert plot_bench.main(words) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| 41.0x | as fast as Riffusion's algorithm | 40.0 to 43.0 |" in text
    assert "| 0.50 | of the memory that it takes |  |" in text
    assert "| one denoising step | 59.1 ms |" in text
    assert plot_bench.main([*words, "--check"]) == 0
    page.write_text("no marks")
    assert plot_bench.main(words) == 2
    assert "needs one line <!-- bench -->" in capsys.readouterr().err
    assert page.read_text() == "no marks"


def test_the_plot_has_a_dot_for_every_run_and_a_ring_for_a_busy_machine(history) -> None:
    tree = ElementTree.fromstring(picture(load_history(history)))
    circles = [each for each in tree.iter() if each.tag.endswith("circle") and each.get("stroke")]
    assert [circle.get("fill") == "none" for circle in circles] == [False, False, True, False]
    heights = [float(circle.get("cy")) for circle in circles]
    assert heights[1] < heights[0] < heights[3] < heights[2], "faster is higher"


def test_a_part_of_musiccaps_is_always_the_same(tmp_path) -> None:
    prompts = example("musiccaps_prompts")
    table = tmp_path / "musiccaps-public.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["ytid", "start_s", "caption"])
        writer.writerows([f"id{number}", 30, f"a song,\nnumber {number}" if number != 3 else ""] for number in range(9))
    items = prompts.read_captions(table)
    assert len(items) == 8 and items[0] == {"name": "id0", "prompt": "a song, number 0"}
    chosen = prompts.choose(items, 4)
    assert chosen == prompts.choose(items, 4) and len({item["name"] for item in chosen}) == 4
    assert prompts.choose(items, 99) == items
    table.write_text("x,y\n1,2\n")
    with pytest.raises(SystemExit, match="no columns ytid and caption"):
        prompts.read_captions(table)


@pytest.fixture(scope="module")
def tiny_vggish(tmp_path_factory) -> Path:
    """Weights of VGGish's layers with few channels."""
    import torch

    torch.manual_seed(0)
    layers = {0: (1, 4), 3: (4, 4), 6: (4, 8), 8: (8, 8), 11: (8, 8), 13: (8, 8)}
    weights = {}
    for place, (inside, outside) in layers.items():
        weights[f"features.{place}.weight"] = torch.randn(outside, inside, 3, 3) / (3 * inside**0.5)
        weights[f"features.{place}.bias"] = torch.zeros(outside)
    for place, (inside, outside) in {0: (8 * 24, 16), 2: (16, 16), 4: (16, 6)}.items():
        weights[f"embeddings.{place}.weight"] = torch.randn(outside, inside) / inside**0.5
        weights[f"embeddings.{place}.bias"] = torch.zeros(outside)
    path = tmp_path_factory.mktemp("vggish") / "tiny.pth"
    torch.save(weights, path)
    return path


def test_vggishs_pictures_show_a_tone_in_its_band() -> None:
    import torch

    vggish = example("vggish_fad")
    tone = torch.sin(2 * torch.pi * 1000.0 * torch.arange(2 * 16000) / 16000)[None]
    found = vggish.examples_of(tone, 16000)
    assert found.shape == (2, 1, 96, 64)
    mel = [1127.0 * torch.log1p(torch.tensor(hz / 700.0)) for hz in (125.0, 1000.0, 7500.0)]
    band = float((mel[1] - mel[0]) / (mel[2] - mel[0]) * 65 - 1)
    assert abs(int(found[0, 0, 40].argmax()) - band) <= 1
    assert float(vggish.examples_of(torch.zeros(1, 32000), 16000).max()) == pytest.approx(-4.60517), "log 0.01"
    assert len(vggish.examples_of(tone[:, :15000], 16000)) == 0


def test_the_vggish_distance_grows_with_distortion(tiny_vggish, tmp_path, capsys) -> None:
    """As Google's own test has it: sine waves, more and more distorted by noise."""
    import torch

    from riff.audio.io import save_audio

    vggish = example("vggish_fad")
    generator = torch.Generator().manual_seed(0)
    for name, noise in (("clean", 0.0), ("soft", 0.0005), ("loud", 0.02)):
        (tmp_path / name).mkdir()
        for number in range(6):
            tone = 0.5 * torch.sin(2 * torch.pi * (300.0 + 90.0 * number) * torch.arange(32000) / 16000)
            sound = tone + noise * torch.randn(32000, generator=generator)
            save_audio(tmp_path / name / f"{number}.wav", sound[None].clamp(-1, 1), 16000)
    distances = {}
    for name in ("clean", "soft", "loud"):
        words = [str(tmp_path / name), str(tmp_path / "clean"), "--weights", str(tiny_vggish)]
        assert vggish.main([*words, "-o", str(tmp_path / "fad.json")]) == 0
        found = json.loads((tmp_path / "fad.json").read_text())
        assert (found["generated"], found["reference"], found["windows"]) == (6, 6, [12, 12])
        distances[name] = found["fad"]
    assert distances["clean"] == pytest.approx(0.0, abs=1e-6)
    assert 0.0 < distances["soft"] < distances["loud"]
    assert vggish.main([str(tmp_path / "clean"), str(tmp_path / "soft"), "--weights", "missing.pth"]) == 2
    assert "no VGGish there" in capsys.readouterr().err


def test_the_recipe_says_what_is_wrong_with_its_settings(tmp_path) -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    wrong = os.environ | {"REFERENCE": str(tmp_path / "none"), "OUT": str(tmp_path / "out")}
    done = subprocess.run(["bash", str(SCRIPT)], env=wrong, capture_output=True, text=True)
    assert done.returncode == 2 and "is no folder; give one with recordings" in done.stderr


@pytest.mark.slow
def test_the_whole_recipe_on_tiny_stand_ins(mini_checkpoint, riffusion_checkpoint, tiny_vggish, tmp_path) -> None:
    from benchmarks.tune import tune
    from riff.audio.io import save_audio

    captions, reference, out = tmp_path / "captions.csv", tmp_path / "reference", tmp_path / "out"
    rows = ["a slow piano", "fast techno in A minor", "noise of 900 bpm", "a waltz with strings"]
    captions.write_text("ytid,caption\n" + "".join(f"-id_{number},{text}\n" for number, text in enumerate(rows)))
    reference.mkdir()
    for number in range(4):
        save_audio(reference / f"{number}.wav", tune(2.0, 16000, seed=number), 16000)
    settings = {
        "MODELS": f"{mini_checkpoint} {riffusion_checkpoint}", "REFERENCE": str(reference), "OUT": str(out),
        "CAPTIONS": str(captions), "DURATION": "1.5", "STEPS": "1", "DEVICE": "cpu", "EMBEDDINGS": "mel",
        "DOWNLOAD": "0", "VGGISH": str(tiny_vggish), "WORKERS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    for _ in range(2):  # the second run keeps what is there
        done = subprocess.run(["bash", str(SCRIPT)], env=os.environ | settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "900 bpm" in done.stderr, "what cannot be played is named"
    places = [place for place in out.iterdir() if place.is_dir()]
    assert len(places) == 2
    for place in places:
        assert len(list((place / "clips").glob("*.wav"))) == 3
        assert json.loads((place / "vggish.json").read_text())["generated"] == 3
        assert json.loads((place / "report.json").read_text())["sections"]
        assert (place / "report" / "index.html").is_file()
    page = scoreboard.scoreboard(CARD, [], scoreboard.read_evaluations(out))
    assert page.count("FAD (VGGish) |") == 3
