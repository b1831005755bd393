"""The benchmark measures what it says, in processes of their own, on a model in miniature."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.harness import Measured, Missing, Ratio, Side, compare, measure_alone, memory_share, speed
from benchmarks.history import Bench, Section, describe_machine, load_history, machine_slug, save_bench
from benchmarks.render import STAGES, measure
from benchmarks.run import SECTIONS, bench
from benchmarks.serving import SIDES as SERVERS
from benchmarks.serving import Round, _figures, _ratio, serve_section, served
from riff.utils.errors import ModelError, RiffError, SystemProblem

ROOT = Path(__file__).parents[2]
# What stands in for riff and a rival: no torch, so that a process begins in a moment.
SIDES = """
import time

def side(*, seconds, megabytes=0, loud=False):
    block = bytearray(b"x") * (megabytes << 20)
    if loud:
        print("a library has something to say")
    def step(number):
        return {
            "seconds": seconds * (1 if number else 100), "processor_seconds": 2 * seconds * seconds,
            "number": number, "at": time.monotonic(),
        }
    return step

def ignorant():
    import no_such_package

def mistaken():
    from riff.utils.errors import ModelError
    raise ModelError("the weights are gone")

def dying():
    import os, sys
    print("the disk is on fire", file=sys.stderr, flush=True)
    os._exit(3)

def alone(*, word):
    return {"word": word}
"""
MACHINE = {
    "processor": "AMD EPYC 9B14 96-Core Processor",
    "cores": 2,
    "threads": 1,
    "memory_gib": 47.1,
    "accelerator": None,
    "system": "Linux x86_64",
    "python": "3.11.7",
    "packages": {"torch": "2.14.1"},
    "load": 0.1,
    "noisy": False,
}


def found(*sections: Section, when: str = "2026-11-25T08:00:00+00:00", **fields) -> Bench:
    return Bench("0.1.0", when, MACHINE | fields, {"model": "riff-mini", "quick": False}, list(sections), 12.34)


@pytest.fixture
def sides(tmp_path, monkeypatch):
    (tmp_path / "sides_of_a_test.py").write_text(SIDES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "sides_of_a_test:"


def test_sides_are_measured_in_turn_and_compared_pair_by_pair(sides) -> None:
    both = {"ours": Side(f"{sides}side", {"seconds": 0.5}), "theirs": Side(f"{sides}side", {"seconds": 2.0})}
    measured = compare(both, 3)
    ours, theirs = measured["ours"], measured["theirs"]
    assert [each["number"] for each in ours.rounds] == [1, 2, 3]
    at = sorted([(each["at"], "o") for each in ours.rounds] + [(each["at"], "t") for each in theirs.rounds])
    assert "".join(name for _, name in at) == "ottoot", "every second round is in reverse order"
    ratio = speed("speed", "as fast", ours, theirs)
    assert (ratio.value, ratio.low, ratio.high, ratio.pairs) == (4.0, 4.0, 4.0, 3)
    assert ratio.processor == 16.0
    assert ratio.line() == "  4.00x  as fast (4.00 to 4.00 in 3 pairs), 16.0x by processor time"
    assert ours.first["seconds"] == 50.0, "the round that warms up is kept apart"
    assert ours.ready_s > 0


def test_each_side_has_its_own_peak_memory(sides) -> None:
    small = Side(f"{sides}side", {"seconds": 1.0, "loud": True})
    large = Side(f"{sides}side", {"seconds": 1.0, "megabytes": 200})
    measured = compare({"small": small, "large": large}, 1)
    if measured["small"].peak_memory_mib is None:
        pytest.skip("this system does not tell")
    more = measured["large"].peak_memory_mib - measured["small"].peak_memory_mib
    assert 190 < more < 230
    (share,) = memory_share("memory", "of it", measured["small"], measured["large"])
    assert share.value < 0.5 and not share.times


def test_what_a_side_raises_is_raised_here_in_the_same_words(sides) -> None:
    with pytest.raises(ModelError, match="the weights are gone"):
        compare({"one": Side(f"{sides}mistaken")}, 1)
    with pytest.raises(Missing, match="no_such_package"):
        compare({"one": Side(f"{sides}ignorant")}, 1)
    with pytest.raises(SystemProblem, match=r"ended with code 3: the disk is on fire"):
        compare({"one": Side(f"{sides}dying")}, 1)
    assert measure_alone(f"{sides}alone", {"word": "Füße"}) == {"word": "Füße"}


def test_every_figure_of_a_render_is_measured_and_they_fit(mini_checkpoint) -> None:
    figures = measure(model=str(mini_checkpoint), device="cpu", steps=2, repeat=2)
    assert all(figures[f"{stage}_s"] > 0 for stage in STAGES)
    assert figures["step_s"] == pytest.approx(figures["unet_s"] / 2)
    assert figures["music_per_work"] == pytest.approx(figures["music_s"] / figures["render_s"])
    assert figures["real_time_factor"] == pytest.approx(1 / figures["music_per_work"])
    assert figures["peak_memory_mib"] is None or 50 < figures["peak_memory_mib"] < 8000
    assert (figures["device"], figures["steps"]) == ("cpu", 2)
    # A bar of 4 beats at 120 bpm lasts 2 s.
    assert figures["live_bar_s"] == pytest.approx(2.0) and figures["live_work_s"] > 0
    # A beat of 84 bpm lasts 60/84 s and the picture is eight beats wide.
    assert figures["music_s"] == pytest.approx(8 * 60 / 84, abs=1e-3)


def test_both_sides_of_denoising_draw_the_same_picture(mini_checkpoint) -> None:
    from benchmarks.denoise import draw_as_diffusers, draw_as_riff

    arguments = {"model": str(mini_checkpoint), "device": "cpu", "steps": 2, "sound": True}
    ours, theirs = draw_as_riff(**arguments)(3), draw_as_diffusers(**arguments)(3)
    pixels = [name for name in ours if name.startswith("pixel_")]
    assert len(pixels) == 64
    assert all(ours[name] == pytest.approx(theirs[name], abs=1e-4) for name in pixels)
    assert len({round(ours[name], 4) for name in pixels}) > 10, "a picture of one colour would prove nothing"
    assert ours["whole_s"] == ours["seconds"] + ours["sound_s"]
    assert "sound_s" not in theirs, "columns of 89 ms are further apart than the windows reach"


def test_a_compiled_denoiser_is_compared_with_riff_and_diffusers(monkeypatch) -> None:
    from benchmarks import denoise

    def pretend(sides, rounds):
        assert sides["compiled"].arguments == sides["riff"].arguments | {"compile": True}
        seconds = {"riff": 2.0, "diffusers": 3.0, "compiled": 1.0}
        figures = {
            name: {
                f"{work}{figure}": value
                for work in ("", "processor_")
                for figure in ("seconds", "same_s", "whole_s", "sound_s")
            }
            | {"pixel_0": 0.5}
            for name, value in seconds.items()
        }
        return {name: Measured([figures[name]] * rounds, 1.0, figures[name], 100.0) for name in sides}

    monkeypatch.setattr(denoise, "compare", pretend)
    section = denoise.denoise_section(model=None, device="cpu", steps=2, repeat=3, compile=True)
    ratios = {ratio.name: ratio.value for ratio in section.ratios}
    assert ratios["compiled_speed"] == 2.0 and ratios["compiled_to_sound_speed"] == 3.0
    assert section.figures["compiled_picture_s"] == 1.0


def test_both_ways_from_picture_to_sound_come_near_the_picture(monkeypatch) -> None:
    pytest.importorskip("torchaudio")
    from benchmarks import sound

    monkeypatch.setattr(sound, "COLUMNS", 24)
    ours, theirs = sound.riff_way(quality="default")(1), sound.riffusions_way()(1)
    assert ours["mel_error_db"] < theirs["mel_error_db"] < 0.0
    assert ours["seconds"] > 0 and theirs["seconds"] > 0


def test_both_ways_from_sound_to_picture_agree() -> None:
    pytest.importorskip("torchaudio")
    import torch

    from benchmarks.baselines import torchaudios_mel
    from benchmarks.tune import tune
    from riff.spectrogram.config import SpectrogramConfig
    from riff.spectrogram.mel import waveform_to_mel

    config = SpectrogramConfig.riffusion()
    waveform = tune(0.5, config.sample_rate)
    ours, theirs = waveform_to_mel(waveform, config), torchaudios_mel(config)(waveform)
    columns = min(ours.shape[-1], theirs.shape[-1])
    inside = slice(6, columns - 6)  # ends are padded in other ways
    assert torch.allclose(ours[..., inside], theirs[..., inside], rtol=1e-3, atol=1e-3 * float(ours.max()))


def test_a_side_of_encoding_reads_and_writes_files() -> None:
    from benchmarks.encode import files, riff_way

    assert files(seconds=1.0)(0)["seconds"] > 0
    assert riff_way(seconds=1.0, preset="riff")(0)["seconds"] > 0


def test_a_tune_is_the_same_every_time_and_another_for_another_seed() -> None:
    import torch

    from benchmarks.tune import tune

    assert torch.equal(tune(1.0, 8000, seed=1), tune(1.0, 8000, seed=1))
    assert not torch.equal(tune(1.0, 8000, seed=1), tune(1.0, 8000, seed=2))
    assert tune(1.3, 8000).shape == (1, 10400) and float(tune(1.3, 8000).abs().max()) == pytest.approx(0.8)


def test_a_side_of_preparation_counts_its_clips(tmp_path) -> None:
    from benchmarks.preparing import measure as prepare
    from benchmarks.preparing import write_music

    write_music(tmp_path / "music", files=1, seconds=9.0)
    figures = prepare(music=str(tmp_path / "music"), dataset=str(tmp_path / "dataset"), workers=0)
    assert figures["clips"] >= 1 and figures["seconds"] > 0


@pytest.mark.parametrize("side", ["riff", "diffusers"])
def test_a_side_of_training_ends_when_its_steps_are_counted(side, mini_checkpoint, mini_config, tmp_path) -> None:
    pytest.importorskip("accelerate")
    from benchmarks.training import ride, write_data_set

    write_data_set(tmp_path / "data", mini_config)
    figures = ride(side=side, model=str(mini_checkpoint), folder=str(tmp_path), run="run", steps=2, batch_size=2)
    assert figures["seconds"] > 0 and figures["processor_seconds"] > 0


def test_a_servers_requests_are_counted_and_waited_for(mini_checkpoint) -> None:
    pytest.importorskip("fastapi")
    section = serve_section(model=str(mini_checkpoint), device="cpu", steps=1, repeat=2, clients=2, each=1)
    (ratio,) = section.ratios
    assert (ratio.name, ratio.pairs) == ("serve_batched", 2) and 0 < ratio.low <= ratio.value <= ratio.high
    figures = section.figures
    assert (figures["clients"], figures["requests"]) == (2, 2)
    for side in SERVERS:
        # Two clients who ask once each are answered within the round, which lasts requests / (requests a second).
        assert 0 < figures[f"{side}_wait_p50_s"] <= figures[f"{side}_wait_p95_s"]
        assert figures[f"{side}_requests_per_second"] > 0


def test_rates_and_waits_of_rounds_whose_truth_is_known() -> None:
    quick, slow = Round(2.0, [0.5, 1.0, 1.5, 2.0], 4.0), Round(4.0, [1.0, 2.0, 3.0, 4.0], 6.0)
    ratio = _ratio([quick, quick], [slow, quick])
    assert (ratio.low, ratio.value, ratio.high, ratio.processor) == (1.0, 1.5, 2.0, 1.25)
    assert _figures("a", [slow]) == {
        "a_requests_per_second": 1.0,
        "a_wait_p50_s": 2.5,
        "a_wait_p95_s": pytest.approx(3.85),  # linear between the third and the fourth, at 0.95 of the way along
    }


def test_a_server_that_does_not_start_is_told_in_its_own_words() -> None:
    pytest.importorskip("fastapi")
    with pytest.raises(ModelError, match="missing-folder"), served(["--model", "missing-folder/x"]):
        pass


@pytest.mark.slow
def test_the_whole_benchmark_in_processes_of_their_own(mini_checkpoint, tmp_path, capsys) -> None:
    words = ["--model", str(mini_checkpoint), "--steps", "1", "--quick", "--device", "cpu", "--json"]
    assert main([*words, "--save", "--results", str(tmp_path)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["sections"]) == list(SECTIONS)
    figures = result["sections"]["render"]["figures"]
    assert figures["help_s"] < figures["import_s"] + figures["load_s"] < figures["cold_start_to_file_s"]
    assert {
        "real_time",
        "live_real_time",
        "denoise_speed",
        "sound_speed_default",
        "sound_speed_to_librosa",
        "train_speed",
        "serve_batched",
    } <= set(result["ratios"])
    assert result["sections"]["denoise"]["figures"]["pictures_differ_by"] < 1e-3
    assert [run["ratios"] for run in load_history(tmp_path)] == [result["ratios"]]


def test_the_table_has_the_ratios_first() -> None:
    ratio = Ratio.of("sound_speed", "as fast as Riffusion's algorithm", [39.0, 41.0, 38.0])
    share = Ratio.of("memory", "of the memory", [0.5], times=False)
    section = Section("sound", [ratio, share], {"riff_s": 0.25, "columns": 512, "peak_memory_mib": None}, ["A note."])
    assert list(found(section).lines()) == [
        "riff 0.1.0 on AMD EPYC 9B14 96-Core Processor, 2 cores, 1 thread",
        "",
        "  39.0x  as fast as Riffusion's algorithm (38.0 to 41.0 in 3 pairs)",
        "   0.50  of the memory",
        "",
        "sound, measured in 0 s",
        "  riff_s           0.250",
        "  columns          512",
        "  peak_memory_mib  not measured",
        "  (A note.)",
    ]
    assert next(found(section, noisy=True).lines()).endswith("trust the ratios by processor time")


def test_the_command_asks_for_what_it_is_told(monkeypatch, capsys, tmp_path) -> None:
    asked = {}

    def measured(sections, **options):
        asked.update(options, sections=sections)
        return found(Section("encode", [], {"riff_s": 1.0}))

    monkeypatch.setattr("benchmarks.run.bench", measured)
    assert main(["encode", "--steps", "7", "--repeat", "2", "--device", "cpu", "--quick"]) == 0
    assert (asked["sections"], asked["model"], asked["device"]) == (["encode"], None, "cpu")
    assert (asked["steps"], asked["repeat"], asked["quick"]) == (7, 2, True)
    assert asked["compile"] is False
    assert capsys.readouterr().out.splitlines()[-1] == "  riff_s  1.000"
    assert main(["--json", "--compile", "--save", "--results", str(tmp_path)]) == 0
    assert asked["compile"] is True
    assert json.loads(capsys.readouterr().out)["sections"]["encode"]["figures"] == {"riff_s": 1.0}
    assert [path.name for path in tmp_path.iterdir()] == ["0.1.0-amd-epyc-9b14-2-cores-2026-11-25.json"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["denoize"], "there is no section 'denoize' to measure; did you mean denoise? known are"),
        (["--results", "x"], "--results x says where to keep the result; add --save to keep it"),
        (["sound", "--compile"], "--compile changes nothing in sound; add the section denoise"),
        (["--repeat", "0"], "'0' is not a whole number from 1 to 1000"),
    ],
)
def test_wrong_words_are_one_line(words, line, capsys) -> None:
    assert main([*words]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said


def test_a_section_that_cannot_be_measured_is_a_note(monkeypatch) -> None:
    def missing(**_):
        raise SystemProblem("fine-tuning needs accelerate; install it")

    monkeypatch.setattr("benchmarks.run.SECTIONS", ("encode", "train"))
    monkeypatch.setattr("benchmarks.training.train_section", missing)
    monkeypatch.setattr("benchmarks.encode.encode_section", lambda **_: Section("encode", figures={"riff_s": 1.0}))
    whole = bench(quick=True)
    assert whole.sections[0].figures == {"riff_s": 1.0}
    assert whole.sections[1].notes == ["Not measured: fine-tuning needs accelerate; install it."]
    with pytest.raises(SystemProblem, match="needs accelerate"):
        bench(["train"], quick=True)


def test_a_device_that_is_not_there_is_one_line_at_once(capsys) -> None:
    assert main(["--device", "warp"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "warp" in said


def test_a_history_grows_and_is_read_oldest_first(tmp_path) -> None:
    later = found(Section("encode"), when="2026-11-25T09:00:00+00:00")
    earlier = dataclasses.replace(later, version="0.0.9", when="2026-10-01T09:00:00+00:00")
    first = save_bench(later, tmp_path / "new")
    assert save_bench(later, tmp_path / "new") == first
    save_bench(earlier, tmp_path / "new")
    assert [run["riff"] for run in load_history(tmp_path / "new")] == ["0.0.9", "0.1.0", "0.1.0"]
    assert load_history(tmp_path / "none") == []
    first.write_text('{"runs": [{"riff": "0.1.0"}]}')
    with pytest.raises(RiffError, match=r"2026-11-25.json is no file of python -m benchmarks --save"):
        load_history(tmp_path / "new")
    with pytest.raises(RiffError, match="is no file of python -m benchmarks"):
        save_bench(later, tmp_path / "new")


def test_a_machine_is_described_without_its_name() -> None:
    import platform

    machine = describe_machine()
    assert machine["cores"] >= 1 and machine["processor"] and "torch" in machine["packages"]
    name = platform.node()
    assert not name or name not in json.dumps(machine)
    assert machine_slug(
        machine | {"processor": "Intel(R) Core(TM) i7-12700 CPU @ 2.10GHz", "accelerator": None}
    ).startswith("intel-core-i7-12700-")
    assert machine_slug(machine | {"accelerator": "NVIDIA H100 80GB HBM3"}).startswith("nvidia-h100-80gb-hbm3-")


def test_peak_memory_counts_what_was_given_back() -> None:
    code = """if True:
        from riff.utils.parallel import peak_memory_mib as peak_memory
        before = peak_memory()
        block = bytearray(b"x") * (200 << 20)
        del block
        print(before is None or 190 < peak_memory() - before < 230)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_a_missing_model_is_the_error_of_a_render() -> None:
    with pytest.raises(ModelError, match="no such model"):
        bench(["render"], model="no such model", steps=1, repeat=1)
