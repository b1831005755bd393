"""The command under stress: bad files in a folder, misspelt words, a reader that leaves, a disk that says no."""

import argparse
import errno
import json
import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest
import soundfile
import torch

from riff.apps.cli import VERBS, build_parser, main
from riff.apps.cli.generate import base_of_run
from riff.apps.cli.lists import NAMES, read_items
from riff.apps.cli.options import add_options, make_request
from riff.audio.io import save_audio
from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.png import read_png, write_png
from riff.tasks.provenance import provenance, sound_tags
from riff.tasks.requests import ExtendRequest, InpaintRequest, RemixRequest, RenderRequest, WalkRequest
from riff.utils.errors import ModelError, RiffError, SystemProblem, is_out_of_memory
from riff.utils.files import atomic_path, remove_leftovers
from riff.utils.schema import describe_fields
from tests.apps.test_cli import run_on
from tests.apps.test_cli_canvas import save_lora

ROOT = Path(__file__).parents[2]
CONFIG = SpectrogramConfig(n_mels=32, grid="seconds")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tone(path: str, hertz: float, *, seconds: float = 0.3) -> Path:
    """A sine wave, by whatever container the name says."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(place, 0.5 * np.sin(np.arange(int(44100 * seconds)) * hertz * 2 * np.pi / 44100), 44100)
    return place


def image(path: str, **metadata: Any) -> Path:
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_png(place, torch.rand(1, 32, 40), CONFIG, metadata=metadata)
    return place


def with_words(source: str, target: str, old: str, new: str) -> None:
    """A copy of an image in whose description one word is another."""
    picture, info = PIL.Image.open(source), PIL.PngImagePlugin.PngInfo()
    for name, text in picture.info.items():
        if isinstance(text, str):
            assert old in text
            info.add_text(name, text.replace(old, new))
    picture.save(target, pnginfo=info)


# One bad file ends no batch


def test_no_bad_image_ends_a_folder_and_each_is_named(here, capsys) -> None:
    image("in/m.png")
    for name, digits in (("a", 400), ("b", 5000), ("y", 30)):
        with_words("in/m.png", f"in/{name}.png", '"sample_rate": 44100', f'"sample_rate": {"9" * digits}')
        with_words("in/m.png", f"in/{name}2.png", '"f_max"', f'"f_{"x" * digits}"')
    Path("in/cut.png").write_bytes(Path("in/m.png").read_bytes()[:200])
    Path("in/empty.png").write_bytes(b"")
    Path("in/text.png").write_text("hello")
    assert main(["decode", "in", "-o", "out", "--quality", "fast"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "out/m.wav\n"
    assert len([line for line in printed.err.splitlines() if line.startswith("skipped in/")]) == 9
    assert printed.err.splitlines()[-1].startswith("riff: error: 9 of 10 inputs could not be used: in/")


def test_no_bad_sound_ends_a_folder(here, capsys, monkeypatch) -> None:
    for name in ("a.flac", "m.wav", "z.wav"):
        tone(f"in/{name}", 330)
    content = bytearray(Path("in/a.flac").read_bytes())
    content[21] |= 0x0F  # the highest bits of the number of samples in STREAMINFO
    content[22:26] = b"\xff\xff\xff\xff"
    Path("in/a.flac").write_bytes(content)
    Path("in/b.wav").write_bytes(b"RIFF\xff\xff\xff\xffWAVEfmt ")
    Path("in/c.mp3").write_bytes(os.urandom(3000))
    assert main(["encode", "in", "-o", "out", "--quiet"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "out/m.png\nout/z.png\n"
    assert "3 of 5 inputs could not be used" in printed.err and printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "not enough memory"),  # noqa: E501
        (OverflowError("int too large"), "OverflowError: int too large"),
        (SystemProblem("this needs a decoder"), "needs a decoder"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)  # fmt: skip
def test_whatever_one_input_raises_is_its_own_problem(here, capsys, monkeypatch, error, says) -> None:
    import riff.audio.io

    for name in "abc":
        tone(f"in/{name}.wav", 330)
    whole = riff.audio.io.load_audio

    def load(path: Any, **options: Any) -> Any:
        if Path(path).name == "a.wav":
            raise error
        return whole(path, **options)

    monkeypatch.setattr(riff.audio.io, "load_audio", load)
    assert main(["encode", "in", "-o", "out"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "out/b.png\nout/c.png\n"
    assert says in printed.err and "defect" not in printed.err


def test_a_full_disk_ends_a_folder_at_once(here, capsys, monkeypatch) -> None:
    for name in "abc":
        tone(f"in/{name}.wav", 330)

    def full(*_: Any, **__: Any) -> None:
        raise SystemProblem("the disk is full")

    monkeypatch.setattr("riff.spectrogram.png.write_png", full)
    assert main(["encode", "in", "-o", "out"]) == 5
    assert capsys.readouterr().err == "riff: error: the disk is full\n"


# What a killed run leaves behind


def test_unfinished_files_are_no_input_and_go_after_an_hour(here, capsys) -> None:
    tone("in/song.wav", 330)
    for name in (".riff-0123456789ab.wav", "._song.wav"):
        Path("in", name).write_bytes(Path("in/song.wav").read_bytes())
    Path("out").mkdir()
    old, new, other = (Path("out", name) for name in (".riff-aaaaaaaaaaaa.png", ".riff-bbbbbbbbbbbb.png", ".riff-mine"))
    for path in (old, new, other):
        path.write_text("half")
    for path in (old, other):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    assert main(["encode", "in", "-o", "out"]) == 0
    assert capsys.readouterr().out == "out/song.png\n"
    assert sorted(path.name for path in Path("out").iterdir()) == [".riff-bbbbbbbbbbbb.png", ".riff-mine", "song.png"]


def test_a_missing_folder_has_no_leftovers(here) -> None:
    remove_leftovers(here / "nowhere")


# A file that is added later


def sources(folder: str) -> set[str]:
    return {str(read_png(path)[2]["source"]) for path in Path(folder).glob("*.png")}


def pixels(folder: str) -> set[bytes]:
    return {PIL.Image.open(path).tobytes() for path in Path(folder).glob("*.png")}


@pytest.mark.parametrize(
    ("first", "later"),
    [
        ("in/x/song.wav", "in/a/song.wav"),
        ("in/song.wav", "in/a/song.wav"),
        ("in/a/song.wav", "in/song.wav"),
        ("in/song.wav", "in/song.flac"),
        ("in/song.flac", "in/song.wav"),
        ("in/x-song.wav", "in/x/song.wav"),
        ("in/song.wav", "in/SONG.FLAC"),
    ],
)
def test_a_file_that_is_added_is_encoded_and_no_other_again(here, capsys, first, later) -> None:
    tone(first, 330)
    assert main(["encode", "in", "-o", "out", "--preset", "riffusion"]) == 0
    tone(later, 880)
    capsys.readouterr()
    assert main(["encode", "in", "-o", "out", "--preset", "riffusion"]) in (0,)
    assert len(capsys.readouterr().out.splitlines()) == 1 or first == "in/x-song.wav"
    assert len(pixels("out")) == 2
    assert main(["encode", "in", "-o", "out", "--preset", "riffusion"]) == 0
    assert capsys.readouterr().out == ""


def test_files_of_one_name_from_two_folders_are_told_apart(here, capsys) -> None:
    tone("a/song.wav", 330), tone("b/song.wav", 880)
    for inputs in (["a/song.wav", "b/song.wav"], ["b/song.wav", "a/song.wav"]):
        assert main(["encode", *inputs, "-o", "out", "--preset", "riffusion"]) == 0
    assert len(pixels("out")) == len(list(Path("out").iterdir())) == 2


# Options


def test_riff_alone_prints_the_help(capsys) -> None:
    assert main([]) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and "exit codes:" in printed.out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["rendr", "jazz"], "did you mean render?"),
        (["dokter"], "did you mean doctor?"),
        (["render", "jazz", "-o", "a.wav", "--stpes", "3"], "did you mean --steps?"),
        (["render", "jazz", "--outptu", "a.wav"], "did you mean --output?"),
        (["remix", "a.wav", "jazz", "-o", "b.wav", "--strenght=0.3"], "did you mean --strength?"),
        (["train", "data", "-o", "run", "--max_train_step", "3"], "did you mean --max_train_steps?"),
    ],
)
def test_a_misspelt_word_names_its_nearest_neighbour(here, capsys, words, hint) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert hint in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["render", "jazz", "-o", "a.aac", "--time", "3/4"], "--time is now --time-signature"),
        (["play", "--share", "never", "--host", " "], "--share changes nothing"),
        (["train", "-o", "run", "--resume_from_checkpoint", "latest"], "--resume_from_checkpoint changes nothing"),
    ],
)
def test_an_old_option_is_accepted_with_one_warning(here, capsys, words, says) -> None:
    assert main(words) in (2, 5)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("riff: warning: ")]
    assert len(warnings) == 1 and says in warnings[0]
    text = build_parser().format_help()
    assert "--share" not in text


def test_an_option_that_would_change_nothing_is_refused(here, capsys) -> None:
    tone("a.wav", 330)
    assert main(["encode", "a.wav", "-o", "a.png", "--seed", "3"]) == 2
    assert "--seed 3 would change nothing without --clips" in capsys.readouterr().err
    assert main(["encode", "a.wav", "-o", "a.png", "--format", "wav"]) == 2
    assert "--format wav goes with a folder" in capsys.readouterr().err


@pytest.mark.parametrize("cls", [RenderRequest, WalkRequest, RemixRequest, ExtendRequest, InpaintRequest])
def test_every_field_of_a_request_is_an_option_with_its_default(cls) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, cls)
    args = parser.parse_args([])
    for field in describe_fields(cls):
        if field.flag and not field.required:
            assert getattr(args, field.name) == field.default
            assert field.flag in parser.format_help()


def test_ends_of_every_range_are_accepted_and_no_more() -> None:
    parse = build_parser().parse_args
    for field in describe_fields(RenderRequest):
        if field.kind not in (int, float) or field.low is None:
            continue
        for value in (field.low, field.high):
            args = parse(["render", "x", "-o", "a.wav", field.flag, str(value)])
            assert getattr(args, field.name) == value
            if field.name != "key_tries":
                make_request(RenderRequest, args, prompt="x")
        for value in (field.low - 1, field.high + 1):
            with pytest.raises(RiffError, match="is not a"):
                parse(["render", "x", "-o", "a.wav", f"{field.flag}={value}"])


def test_a_lists_objects_have_the_commands_options(here) -> None:
    flags = {field.flag[2:].replace("-", "_") for field in describe_fields(RenderRequest) if field.flag}
    assert set(NAMES) == flags | {"name"}
    line = {
        "prompt": "jazz",
        "steps": 3,
        "quality": "fast",
        "time_signature": "3/4",
        "guidance_scale": 2,
        "key": "C major",
    }
    Path("list.jsonl").write_text(json.dumps(line) + '\n{"prompt": "x", "steps": 0}\n')
    good, bad = read_items("list.jsonl")
    assert good.fields["num_inference_steps"] == 3 and good.fields["time_signature"] == "3/4"
    assert bad.problem == "steps is 0; use a whole number from 1 to 150"


def test_pythons_words_are_not_in_the_shells_messages(here, capsys) -> None:
    tone("a.wav", 330)
    Path("a.png").write_text("mine")
    assert main(["encode", "a.wav", "-o", "a.png"]) == 2
    error = capsys.readouterr().err
    assert "use --force to replace it" in error and "True" not in error


def test_completion_knows_verbs_and_options(capsys) -> None:
    for shell in ("bash", "zsh", "tcsh"):
        assert main(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert all(verb in script for verb in VERBS) and "time-signature" in script


def test_doctor_has_a_line_for_each_fact(capsys) -> None:
    assert main(["doctor"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert {"riff", "python", "packages", "processor", "device", "threads", "model", "cache", "disk"} <= set(lines)
    assert "free" in lines["disk"] and any(name.startswith("extra ") for name in lines)
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["riff"].startswith("0.")


def test_doctor_names_what_an_extra_lacks(capsys, monkeypatch) -> None:
    from riff.apps.cli import info as doctor

    found = doctor.package_version
    monkeypatch.setattr(doctor, "package_version", lambda name: None if name == "peft" else found(name))
    assert main(["doctor"]) == 0
    assert "extra lora: lacks peft" in capsys.readouterr().out.splitlines()


# A reader that leaves, a disk that says no

LIST = """
import sys, types
from pathlib import Path
class Clip:
    prompt, seed, bpm, duration, settings = "jazz", 1, 120.0, 4.0, {}
    def save(self, path, overwrite, metadata=True):
        Path(path).write_bytes(b"x")
class Pipeline:
    model = None
    from_pretrained = classmethod(lambda cls, *args, **options: cls())
sys.modules["riff.pipeline"] = types.SimpleNamespace(RiffPipeline=Pipeline)
sys.modules["riff.tasks.run"] = types.SimpleNamespace(run=lambda *args, **options: Clip())
from riff.apps.cli import main
sys.exit(main())
"""


@pytest.mark.skipif(os.name != "posix", reason="POSIX pipes")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["render", "a", "b", "-o", "a.wav"], 141),
        (["render", "--prompts", "list.txt", "-o", "out"], 141),
        (["encode", "in", "-o", "images"], 141),
        (["render", "--help"], 0),
        (["info", "in/a.wav"], 0),
        ([], 0),
    ],
    ids=lambda words: " ".join(words[:2]) if isinstance(words, list) else "",
)
def test_a_reader_that_leaves_ends_work_with_a_code_of_its_own(here, words, code) -> None:
    Path("list.txt").write_text("jazz\nfunk\n")
    tone("in/a.wav", 330), tone("in/b.wav", 330)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", LIST, *words], stdout=writer, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == code
    assert ("the reader of the output has gone" in done.stderr) == (code == 141)
    assert "Traceback" not in done.stderr


def test_a_read_only_disk_has_riffs_own_line(here, capsys, monkeypatch) -> None:
    tone("in/a.wav", 330)
    whole = os.open

    def refuse(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return whole(path, flags, *rest, **named)

    def refuse_folder(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    def refuse_unlink(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "unlink", refuse_unlink)
    with (
        pytest.raises(SystemProblem, match=r"cannot write .*: read-only file system; choose a folder"),
        atomic_path("x"),
    ):
        pass
    assert main(["encode", "in/a.wav", "-o", "a.png"]) == 5
    assert "read-only file system; choose" in capsys.readouterr().err
    monkeypatch.setattr(Path, "mkdir", refuse_folder)
    assert main(["encode", "in", "-o", "new"]) == 5
    error = capsys.readouterr().err
    assert "cannot make the folder new: read-only file system; choose another" in error and "Errno" not in error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] data. DefaultCPUAllocator: not enough memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.97 GB)"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
        np._core._exceptions._ArrayMemoryError((10**12,), np.dtype("f8")),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[:20]}",
)
def test_short_memory_is_recognised_in_every_librarys_words(here, capsys, monkeypatch, error) -> None:
    module = types.ModuleType("riff.pipeline")

    class Pipeline:
        @classmethod
        def from_pretrained(cls, *_: Any, **__: Any) -> None:
            raise error

    module.RiffPipeline = Pipeline  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "riff.pipeline", module)
    assert is_out_of_memory(error)
    assert main(["render", "jazz", "-o", "a.wav"]) == 5
    line = capsys.readouterr().err
    assert "not enough memory" in line and "fewer --bars" in line and line.count("\n") == 1


def test_other_errors_are_not_short_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


# Lists


class ListPipeline:
    """Writes a tenth of a second that says its prompt and seed."""

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> "ListPipeline":
        return cls()

    @property
    def model(self) -> "ListPipeline":
        return self

    def generate(self, request: Any, *_: Any) -> Any:
        prompt, seed = request.prompt, request.seed

        def save(path: Path, *, overwrite: bool, metadata: bool = True) -> Path:
            made = provenance(prompt, model="fake", seed=seed, bpm=120.0)
            return save_audio(path, torch.zeros(1, 4410), 44100, metadata=sound_tags(made), force=overwrite)

        return types.SimpleNamespace(prompt=prompt, seed=seed, bpm=120.0, duration=0.1, settings={}, save=save)


@pytest.fixture
def lists(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    module = types.ModuleType("riff.pipeline")
    module.RiffPipeline = ListPipeline  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "riff.pipeline", module)
    monkeypatch.setitem(sys.modules, "riff.tasks.run", types.SimpleNamespace(run=run_on))
    Path("list.txt").write_text("jazz\nfunk\n")
    return here


@pytest.mark.parametrize("seed", ["9" * 5000, "-1", "²", "", "1e9", "0x10", "٣" * 5000, "9" * 20])
def test_no_clips_seed_stops_a_list(lists, capsys, seed) -> None:
    Path("out").mkdir()
    made = provenance("jazz", model="fake", seed=0, bpm=120.0) | {"seed": seed}
    save_audio("out/0000-jazz.wav", torch.zeros(1, 4410), 44100, metadata=sound_tags(made))
    assert main(["render", "--prompts", "list.txt", "-o", "out"]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["0000-jazz.wav", "0001-funk.wav", "index.html"]
    assert capsys.readouterr().out == "out/0001-funk.wav\n"


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": "x", "seed": ' + "9" * 5000 + "}",
        '{"prompt": "x", "bpm": ' + "9" * 400 + "}",
        '{"prompt": "x", "bpm": 1e999}',
        '{"prompt": "x", "duration": -' + "9" * 5000 + "}",
        '{"prompt": "x", "name": "a\\u0000b"}',
        '{"prompt": "x", "name": ["a"]}',
        '{"prompt": ' + '{"a":' * 2000 + "1" + "}" * 2001,
        '{"prompt": "(((x"}',
        '{"prompt": "x", "prompt": "y", "seed": true}',
    ],
    ids=range(9),
)
def test_no_line_stops_a_list(lists, capsys, line) -> None:
    Path("list.jsonl").write_text(f'{line}\n{{"prompt": "jazz", "seed": 1}}\n')
    assert main(["render", "--prompts", "list.jsonl", "-o", "out"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "out/0001-jazz.wav\n"
    assert "defect" not in printed.err and "1 of 2 prompts could not be played: line 1: " in printed.err
    assert max(map(len, printed.err.splitlines())) < 400


def test_a_lists_problem_in_the_command_itself_is_each_lines(lists, capsys) -> None:
    assert main(["render", "--prompts", "list.txt", "-o", "out", "--key-tries", "3"]) == 2
    assert capsys.readouterr().err == "riff: error: --key-tries 3 needs --key, the key to look for\n"
    assert not Path("out").exists()


def test_each_of_several_files_says_its_seed(lists, capsys) -> None:
    assert main(["render", "jazz", "--count", "3", "-o", "a.wav"]) == 0
    lines = capsys.readouterr().err.splitlines()
    seeds = [int(re.fullmatch(rf"a-000{index}\.wav: seed (\d+)", line)[1]) for index, line in enumerate(lines)]  # type: ignore[index]
    assert seeds == [seeds[0], seeds[0] + 1, seeds[0] + 2]


# Runs of riff train, and files that say how they were made


def make_run(base: Path, folder: Path) -> Path:
    """A run folder as ``riff train`` leaves it, with a LoRA of random weights."""
    save_lora(base, folder / "model")
    settings = {"pretrained_model_name_or_path": str(base), "rank": 2, "trigger": "sarondeng", "seed": None}
    (folder / "recipe.json").write_text(json.dumps({"asked": {}, "settled": settings, "data": "x"}))
    (folder / "figures.json").write_text('{"steps": 7}')
    return folder / "model"


def test_the_model_of_a_run_loads_its_base_and_lora(here, mini_checkpoint, capsys) -> None:
    model = make_run(mini_checkpoint, here / "run")
    words = ["render", "jazz", "--steps", "2", "--quality", "fast", "--seed", "3", "--duration", "0.5", "--quiet"]
    assert main([*words, "--model", str(model), "-o", "a.wav"]) == 0
    assert main([*words, "--model", str(mini_checkpoint), "--lora", str(model), "-o", "b.wav"]) == 0
    assert main([*words, "--model", str(mini_checkpoint), "-o", "c.wav"]) == 0
    sounds = [soundfile.read(f"{name}.wav")[0] for name in "abc"]
    assert np.array_equal(sounds[0], sounds[1]) and not np.array_equal(sounds[0], sounds[2])


def test_info_reads_what_train_wrote(here, mini_checkpoint, capsys) -> None:
    model = make_run(mini_checkpoint, here / "run")
    assert main(["info", str(model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"base: {mini_checkpoint}" in lines and "trained.trigger: sarondeng" in lines and "figures.steps: 7" in lines
    assert lines[-1].startswith('use: riff render "..." --model ')


def test_a_lora_whose_base_is_unknown_or_elsewhere_is_one_line(here, mini_checkpoint) -> None:
    model = make_run(mini_checkpoint, here / "run")
    (here / "run" / "recipe.json").write_text("{")
    with pytest.raises(ModelError, match="does not say which model it belongs to; give the base with --model"):
        base_of_run(str(model))
    settings = {"settled": {"pretrained_model_name_or_path": "somebody/elses"}}
    (here / "run" / "recipe.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="a LoRA of somebody/elses, which is not on this machine"):
        base_of_run(str(model))


def test_info_ends_with_the_command_that_makes_a_file_again(here, mini_checkpoint, capsys) -> None:
    words = ["--model", str(mini_checkpoint), "--steps", "1", "--quality", "fast", "--quiet", "--device", "cpu"]
    tone("in.wav", 330, seconds=4)
    assert main(["render", "jazz", "--duration", "0.5", *words, "-o", "a b.wav"]) == 0
    assert main(["remix", "in.wav", "jazz", "--bpm", "120", *words, "-o", "c.png"]) == 0
    capsys.readouterr()
    assert main(["info", "a b.wav"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == f"again: riff replay 'a b.wav' --model {mini_checkpoint.name}"
    assert main(["info", "c.png"]) == 0
    assert "--source RECORDING" in capsys.readouterr().out.splitlines()[-1]
    assert main(["info", "in.wav"]) == 0
    assert "again" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("shape mismatch"), ZeroDivisionError("division by zero")]
)
def test_no_prompts_failure_stops_a_list(lists, capsys, monkeypatch, error) -> None:
    whole = ListPipeline.generate

    def generate(self: ListPipeline, request: Any, *rest: Any) -> Any:
        if request.prompt == "jazz":
            raise error
        return whole(self, request, *rest)

    monkeypatch.setattr(ListPipeline, "generate", generate)
    assert main(["render", "--prompts", "list.txt", "-o", "out"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "out/0001-funk.wav\n"
    assert "1 of 2 prompts could not be played: line 1: " in printed.err


def test_a_long_list_is_planned_in_linear_time(lists, capsys, monkeypatch) -> None:
    """Measured as comparisons, not as time."""
    Path("list.txt").write_text("".join(f"jazz {number}\n" for number in range(2_000)))
    Path("out").mkdir()
    for number in range(2_000):
        Path(f"out/{number:04d}-jazz-{number}.wav").touch()
    compared = 0

    def equal(self: RenderRequest, other: object) -> bool:
        nonlocal compared
        compared += 1
        return self is other

    monkeypatch.setattr(RenderRequest, "__eq__", equal)
    assert main(["render", "--prompts", "list.txt", "-o", "out", "--quiet", "--seed", "1"]) == 0
    assert compared < 20_000


def test_quiet_silences_warnings_and_not_errors(here, capsys) -> None:
    words = ["render", "jazz", "-o", "a.aac", "--time", "3/4"]
    assert main([*words, "--quiet"]) == 2
    assert capsys.readouterr().err.startswith("riff: error: ")
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("riff: warning: ")


def test_bench_times_this_machine(mini_checkpoint, capsys, monkeypatch) -> None:
    from riff.apps.cli import bench

    monkeypatch.setattr(bench, "_time_command", lambda words: 0.25 if words == ["--help"] else 3.0)
    words = ["bench", "--model", str(mini_checkpoint), "--device", "cpu", "--steps", "2", "--quick"]
    assert main([*words, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert all(figures[name] is None or figures[name] > 0 for name, *_ in bench.LINES)
    assert figures["step_s"] < figures["clip_s"] and figures["help_s"] == 0.25
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(bench.LINES) and "         3 s  from a cold start to a file" in lines


@pytest.mark.parametrize("words", [["sound"], ["--save"], ["--results", "x"], ["--compile"]])
def test_bench_names_where_comparisons_are(capsys, words) -> None:
    assert main(["bench", *words]) == 2
    assert "python -m benchmarks" in capsys.readouterr().err


def test_a_sound_that_ends_early_is_named_in_json_even_when_quiet(here, capsys) -> None:
    save_audio("whole.mp3", 0.2 * torch.rand(1, 88200), 44100)
    Path("cut.mp3").write_bytes(Path("whole.mp3").read_bytes()[:9000])
    assert main(["encode", "cut.mp3", "whole.mp3", "-o", "out", "--quiet", "--json", "--preset", "riffusion"]) == 0
    printed = capsys.readouterr()
    cut, whole = json.loads(printed.out)["results"]
    assert "samples could be read" in cut["warnings"][0] and "warnings" not in whole
    assert printed.err == ""


def test_info_names_what_a_cut_sound_lacks(tmp_path, capsys) -> None:
    from riff.audio.io import save_audio

    whole = save_audio(tmp_path / "a.wav", torch.rand(1, 8000) - 0.5, 8000).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    assert main(["info", str(tmp_path / "cut.wav")]) == 0
    assert "damaged: " in capsys.readouterr().out
