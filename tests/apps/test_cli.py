"""The command: what it prints where, its exit codes, and that a mistake costs one line and leaves no file."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from riff.apps.cli import VERBS, build_parser, main
from riff.apps.cli.options import utf8_text
from riff.tasks.requests import RenderRequest
from riff.utils.errors import ModelError, RiffError, SystemProblem
from riff.utils.validation import BPM_RANGE, MAX_PROMPT
from tests.conftest import with_legacy_weights

ROOT = Path(__file__).parents[2]


class FakeClip:
    """A clip whose file is its own settings."""

    def __init__(self, prompt: str, arguments: dict[str, Any]) -> None:
        self.prompt, self.seed = prompt, arguments["seed"]
        self.bpm, self.duration = arguments["bpm"] or 120.0, 4.0
        self.settings = {"ignored_words": re.findall(r"\bx\w+", prompt), "dropped_words": []}
        self.arguments = arguments

    def save(self, path: Path, *, overwrite: bool, metadata: bool = True) -> Path:
        path.write_text(json.dumps({"force": overwrite, **self.arguments}))
        return path


class FakePipeline:
    """A pipeline that remembers how it was called."""

    loaded: dict[str, Any] | None = None

    @classmethod
    def from_pretrained(cls, source: str | None = None, **options: Any) -> "FakePipeline":
        cls.loaded = {"source": source, **options}
        return cls()

    @property
    def model(self) -> "FakePipeline":
        return self

    def generate(self, request: Any, audio: str | None, callback: Any) -> FakeClip:
        for step in range(request.num_inference_steps):
            if callback:
                callback(step, request.num_inference_steps, None)
        return FakeClip(request.prompt, dataclasses.asdict(request))


def run_on(model: Any, request: Any, audio: str | None = None, *, callback: Any = None) -> Any:
    """What stands in for :func:`riff.tasks.run.run`."""
    return model.generate(request, audio, callback)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakePipeline]:
    monkeypatch.setattr(FakePipeline, "loaded", None)
    module = types.ModuleType("riff.pipeline")
    module.RiffPipeline = FakePipeline  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "riff.pipeline", module)
    monkeypatch.setitem(sys.modules, "riff.tasks.run", types.SimpleNamespace(run=run_on))
    return FakePipeline


@pytest.fixture
def broken(fake: type[FakePipeline], monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make the pipeline raise."""

    def break_with(error: BaseException) -> None:
        def generate(self: FakePipeline, request: Any, audio: str | None, callback: Any) -> None:
            raise error

        monkeypatch.setattr(FakePipeline, "generate", generate)

    return break_with


def render_apart(code: str, *, cwd: Path, output: str = "a.wav", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``riff render`` in a new process with FAKE for a pipeline, which runs ``code`` while it saves."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    code = FAKE.replace("CODE", code)
    words = ["render", "jazz", "--seed", "1", "-o", output]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=cwd, env=environment, text=True, timeout=60, **streams
    )


# What comes out


def test_the_path_is_printed_and_the_file_is_there(fake, tmp_path, capsys) -> None:
    output = tmp_path / "lofi.wav"
    assert main(["render", "lo-fi hip hop, 84 bpm", "-o", str(output)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{output}\n"
    assert re.fullmatch(r"seed \d+\n", printed.err)
    assert json.loads(output.read_text())["seed"] == int(printed.err.split()[1])


def test_every_option_reaches_the_pipeline(fake, tmp_path) -> None:
    output = tmp_path / "a.flac"
    words = [
        "--bpm",
        "174.5",
        "--bars",
        "4",
        "--seed",
        "9",
        "--steps",
        "3",
        "--guidance",
        "2.5",
        "--negative",
        "noise",
        "--quality",
        "high",
    ]
    words += ["--key-tries", "4", "--time", "3/4"]
    words += ["--key", "bb min", "--model", "folder", "--device", "cpu", "--scheduler", "euler", "--force"]
    words += ["--guidance-interval", "0.1", "0.6"]
    assert main(["render", "jazz", "-o", str(output), *words]) == 0
    assert fake.loaded == {
        "source": "folder",
        "device": "cpu",
        "scheduler": "euler",
        "guidance_interval": [0.1, 0.6],
    }
    assert json.loads(output.read_text()) == {
        "prompt": "jazz",
        "force": True,
        "negative_prompt": "noise",
        "bpm": 174.5,
        "bars": 4,
        "duration": None,
        "key": "A# minor",
        "key_tries": 4,
        "best_of": None,
        "time_signature": "3/4",
        "loop": False,
        "seed": 9,
        "num_inference_steps": 3,
        "guidance_scale": 2.5,
        "quality": "high",
    }


def test_several_results_are_numbered_and_each_has_its_own_seed(fake, tmp_path, capsys) -> None:
    assert main(["render", "jazz", "rock", "--count", "2", "--seed", "5", "-o", str(tmp_path / "a.b.ogg")]) == 0
    paths = [tmp_path / f"a.b-{index:04d}.ogg" for index in range(4)]
    assert capsys.readouterr().out.split() == [str(path) for path in paths]
    made = [json.loads(path.read_text()) for path in paths]
    assert [(one["prompt"], one["seed"]) for one in made] == [
        ("jazz", 5),
        ("jazz", 6),
        ("rock", 7),
        ("rock", 8),
    ]
    assert sorted(tmp_path.iterdir()) == paths


def test_json_is_one_object_with_what_a_machine_needs(fake, tmp_path, capsys) -> None:
    output = str(tmp_path / "a.mp3")
    assert main(["render", "jazz xyz", "xyz rock", "--seed", "5", "--bpm", "90", "-o", output, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["paths"] == [str(tmp_path / "a-0000.mp3"), str(tmp_path / "a-0001.mp3")]
    assert (result["seed"], result["bpm"], result["duration_s"]) == (5, 90.0, 4.0)
    assert result["ignored_words"] == ["xyz"]
    assert result["seconds"] >= result["load_seconds"] >= 0
    assert [clip["seed"] for clip in result["clips"]] == [5, 6]


def test_ignored_words_are_named_on_one_line_once_per_prompt(fake, tmp_path, capsys) -> None:
    words = ["render", "jazz xylo xenon", "--count", "3", "--seed", "1", "-o", str(tmp_path / "a.wav")]
    assert main(words) == 0
    seeds = [f"a-000{index}.wav: seed {index + 1}\n" for index in range(3)]
    ignored = "ignored (not in riff-mini's vocabulary): xylo, xenon\n"
    assert capsys.readouterr().err == "".join([seeds[0], ignored, *seeds[1:]])


def test_a_thousand_ignored_words_are_still_one_short_line(fake, tmp_path, capsys) -> None:
    prompt = " ".join(f"x{index}" for index in range(1000))
    assert main(["render", prompt, "--seed", "1", "-o", str(tmp_path / "a.wav")]) == 0
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert len(err) < 300
    assert "and 980 more" in err


def test_quiet_prints_the_path_only(fake, tmp_path, capsys) -> None:
    assert main(["render", "jazz xyz", "--quiet", "-o", str(tmp_path / "a.png")]) == 0
    assert capsys.readouterr() == (f"{tmp_path / 'a.png'}\n", "")


def test_a_bar_is_drawn_on_a_terminal_only(fake, tmp_path, capsys, monkeypatch) -> None:
    words = ["render", "jazz", "--seed", "1", "--steps", "3", "--force", "-o", str(tmp_path / "a.wav")]
    main(words)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    main(words)
    printed = capsys.readouterr()
    assert "3/3" in printed.err or "0/3" in printed.err
    assert printed.out == f"{tmp_path / 'a.wav'}\n"


def test_two_runs_without_a_seed_differ(fake, tmp_path, capsys) -> None:
    for name in ("a.wav", "b.wav"):
        main(["render", "jazz", "-o", str(tmp_path / name)])
    first, second = capsys.readouterr().err.split("\n")[:2]
    assert first != second


def test_version_and_help_go_to_stdout(capsys) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"riff \d+\.\d+\.\d+\n", capsys.readouterr().out)
    assert main(["--help"]) == 0
    printed = capsys.readouterr()
    assert all(f"    {verb} " in printed.out for verb in VERBS)
    assert {"render", "walk", "remix", "extend", "inpaint", "encode", "decode", "convert", "info", "bench"} <= set(
        VERBS
    )
    assert printed.err == ""


# Mistakes cost one line, before any model is loaded

MISTAKES = [
    (["dance"], "invalid choice: 'dance'"),
    (["render"], "required: -o/--output"),
    (["render", "jazz"], "required: -o/--output"),
    (["render", "-o", "a.wav"], "there is no prompt"),
    (["render", "", "-o", "a.wav"], "the prompt is empty"),
    (["render", "jazz", " \t\n", "-o", "a.wav"], "the prompt is empty"),
    (["render", "jazz " * 2001, "-o", "a.wav"], "10005 characters; use at most 10000"),
    (["render", "jazz at 999 bpm", "-o", "a.wav"], "the prompt's tempo is 999 bpm; use a number from 20 to 400"),
    (["render", "half \udce9", "-o", "a.wav"], "not UTF-8"),
    (["render", "jazz", "-o", "a"], "use one of .wav, .flac, .ogg, .mp3, .png"),
    (["render", "jazz", "-o", ""], "use one of .wav"),
    (["render", "jazz", "-o", "a.aac"], "suffix '.aac'"),
    (["render", "jazz", "-o", "missing/a.wav"], "missing does not exist"),
    (["render", "jazz", "-o", "taken.wav"], "--force"),
    (["render", "jazz", "-o", "folder.wav"], "is a folder"),
    (["render", "jazz", "-o", "taken.wav/a.wav"], "is not a folder"),
    (["render", "jazz", "--count", "2", "-o", "many.wav"], "many-0001.wav exists"),
    (["render", "jazz", "-o", "a.wav", "--bars", "2", "--duration", "3"], "not allowed with"),
    (["render", "jazz", "-o", "a.wav", "--key", "H minor"], "key is 'H minor'"),
    (["render", "jazz", "-o", "a.wav", "--seed", str(2**63 - 1), "--count", "2"], "leaves no room"),
    (["render", "jazz", "-o", "a.wav", "--see", "1"], "unrecognized arguments: --see"),
    *(
        (["render", "jazz", "-o", "a.wav", option, value], f"argument {option}: '{value}' is not a ")
        for option, values in {
            "--bpm": ("nan", "inf", "0", "-5", "19.9", "1e9", "fast", ""),
            "--bars": ("0", "-1", "1.5", "nan", "513"),
            "--duration": ("0", "nan", "-1", "inf", "601"),
            "--seed": ("-1", str(2**63), "1.5", "x"),
            "--steps": ("0", "-1", "151", "1.5", "nan"),
            "--guidance": ("nan", "inf", "-0.1", "51"),
            "--count": ("0", "1.5"),
        }.items()
        for value in values
    ),
]


@pytest.mark.parametrize(("words", "match"), MISTAKES, ids=lambda value: " ".join(value)[-40:] or "nothing")
def test_a_mistake_is_one_line_exit_2_and_loads_no_model(fake, tmp_path, monkeypatch, capsys, words, match) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("taken.wav", "many-0001.wav"):
        Path(name).write_text("mine")
    Path("folder.wav").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("riff: error: ")
    assert printed.err.count("\n") == 1
    assert match in printed.err
    assert fake.loaded is None
    assert sorted(tmp_path.rglob("*")) == before
    assert Path("taken.wav").read_text() == "mine"


@pytest.mark.parametrize(
    ("error", "code", "match"),
    [
        (RiffError("bpm is\n7"), 2, "riff: error: bpm is 7"),
        (ModelError("no weights"), 4, "riff: error: no weights"),
        (SystemProblem("disk full"), 5, "riff: error: disk full"),
        (OSError(28, "No space left on device", "a.wav"), 5, "No space left on device: 'a.wav'"),
        (ModuleNotFoundError("No module named 'torch'"), 5, "No module named 'torch'; install riff again"),
        (MemoryError(), 5, "not enough memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), 5, "out of memory"),
        (KeyboardInterrupt(), 130, "riff: interrupted"),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero (a defect in riff"),
    ],
)
def test_each_kind_of_failure_has_its_code_and_one_line(broken, tmp_path, capsys, error, code, match) -> None:
    broken(error)
    words = ["render", "jazz", "--seed", "1", "-o", str(tmp_path / "a.wav")]
    assert main(words) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert match in printed.err
    assert "Traceback" not in printed.err
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback_and_still_the_line(broken, tmp_path, capsys) -> None:
    broken(ModelError("no weights"))
    assert main(["render", "jazz", "-o", str(tmp_path / "a.wav"), "--debug"]) == 4
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.endswith("riff: error: no weights\n")


def test_riffs_own_warning_is_one_line_and_others_are_silent(fake, tmp_path, capsys, monkeypatch) -> None:
    import warnings

    def save(self: FakeClip, path: Path, *, overwrite: bool, metadata: bool = True) -> None:
        home = str(ROOT / "riff" / "audio.py")
        warnings.warn_explicit("the sound peaks\nat 1.2", UserWarning, home, 1)
        warnings.warn_explicit("you should upgrade", UserWarning, "/site-packages/library.py", 1)

    monkeypatch.setattr(FakeClip, "save", save)
    before = warnings.showwarning
    assert main(["render", "jazz", "--seed", "1", "-o", str(tmp_path / "a.wav")]) == 0
    assert capsys.readouterr().err == "riff: warning: the sound peaks at 1.2\n"
    assert warnings.showwarning is before


# The process: signals, closed pipes, odd terminals

FAKE = """
import os, signal, sys, types
from riff.utils.files import atomic_path
class Clip:
    prompt, seed, bpm, duration, settings = "jazz", 1, 120.0, 4.0, {}
    def save(self, path, overwrite, metadata=True):
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            CODE
class Pipeline:
    model = None
    from_pretrained = classmethod(lambda cls, *args, **options: cls())
sys.modules["riff.pipeline"] = types.SimpleNamespace(RiffPipeline=Pipeline)
sys.modules["riff.tasks.run"] = types.SimpleNamespace(run=lambda *args, **options: Clip())
from riff.apps.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits an ignored SIGINT
sys.exit(main())
"""


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
@pytest.mark.parametrize(("signal", "code", "lines"), [("SIGINT", 130, 1), ("SIGTERM", 143, 0)])
def test_a_signal_while_saving_leaves_nothing(tmp_path, signal, code, lines) -> None:
    done = render_apart(f"os.kill(os.getpid(), signal.{signal})", cwd=tmp_path)
    assert done.returncode == code
    assert (done.stdout, done.stderr.count("\n")) == ("", lines)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="POSIX pipes")
def test_a_reader_that_left_is_no_error(tmp_path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "riff", "--help"], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_stdout_is_one_line_and_exit_5(tmp_path, unbuffered) -> None:
    with open("/dev/full", "w") as full:
        done = render_apart("pass", cwd=tmp_path, stdout=full, env={"PYTHONUNBUFFERED": unbuffered})
    assert done.returncode == 5
    assert done.stderr.startswith("riff: error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_an_emoji_in_the_output_path_survives_any_terminal(tmp_path, environment) -> None:
    done = render_apart("pass", cwd=tmp_path, output="\N{MUSICAL KEYBOARD}.wav", env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["\N{MUSICAL KEYBOARD}.wav"]


def test_a_prompt_typed_in_the_c_locale_is_read_as_utf8() -> None:
    assert utf8_text(os.fsencode("fado à noite").decode("ascii", "surrogateescape")) == "fado à noite"


def test_python_minus_m_riff_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "riff", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "riff")


def test_the_command_offers_the_qualities_that_there_are() -> None:
    from riff.apps.cli.options import QUALITIES
    from riff.spectrogram.inversion.solver import QUALITIES as THERE_ARE

    assert QUALITIES == THERE_ARE


def test_the_command_allows_what_the_pipeline_allows() -> None:
    parse = build_parser().parse_args
    for option, limits in [
        ("bpm", (20, 400)),
        ("bars", (1, 512)),
        ("duration", (0.1, 600)),
        ("seed", (0, 2**63 - 1)),
    ]:
        for limit in limits:
            assert getattr(parse(["render", "jazz", "-o", "a.wav", f"--{option}", str(limit)]), option) == limit
            assert getattr(RenderRequest(prompt="jazz", **{option: limit}), option) == limit
        for beyond in (limits[0] - 1, limits[1] + 1):
            with pytest.raises(RiffError, match=f"{option} is "):
                RenderRequest(prompt="jazz", **{option: beyond})
    assert (BPM_RANGE, MAX_PROMPT) == ((20, 400), 10_000)


# The real pipeline, in miniature


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".png"])
def test_a_sentence_becomes_a_file_that_says_how_it_was_made(mini_checkpoint, tmp_path, capsys, suffix) -> None:
    output = tmp_path / f"song{suffix}"
    words = ["--model", str(mini_checkpoint), "--seed", "3", "--steps", "2", "--device", "cpu"]
    assert main(["render", "mellow techno zzz, 120 bpm", "-o", str(output), *words]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{output}\n"
    assert printed.err == f"ignored (not in {mini_checkpoint}'s vocabulary): zzz\n"
    assert main(["info", str(output), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["made"]["prompt"] == "mellow techno zzz, 120 bpm"
    assert (facts["made"]["seed"], facts["made"]["bpm"], facts["made"]["steps"]) == ("3", "120", "2")
    assert facts["made"]["origin"] == "machine-made"


def test_the_same_seed_gives_the_same_bytes_alone_or_among_others(mini_checkpoint, tmp_path) -> None:
    words = ["--model", str(mini_checkpoint), "--steps", "2", "--quiet"]
    assert main(["render", "jazz piano", "--count", "2", "--seed", "6", "-o", str(tmp_path / "a.wav"), *words]) == 0
    assert main(["render", "jazz piano", "--seed", "7", "-o", str(tmp_path / "b.wav"), *words]) == 0
    assert (tmp_path / "a-0001.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert (tmp_path / "a-0000.wav").read_bytes() != (tmp_path / "b.wav").read_bytes()


def test_words_past_the_models_length_are_named_on_one_line(mini_checkpoint, tmp_path, capsys) -> None:
    prompt = "jazz " * 30 + "slow waltz"
    words = ["--model", str(mini_checkpoint), "--steps", "1", "--seed", "0", "--duration", "0.5"]
    assert main(["render", prompt, "-o", str(tmp_path / "a.wav"), *words]) == 0
    err = capsys.readouterr().err
    assert err.startswith("dropped (the prompt is too long for ")
    assert ": jazz, slow, waltz" in err
    assert err.count("\n") == 1


def test_json_tells_the_duration_to_the_sample(mini_checkpoint, tmp_path, capsys) -> None:
    import soundfile

    output = tmp_path / "a.wav"
    words = ["--model", str(mini_checkpoint), "--steps", "1", "--duration", "1.5", "--json"]
    assert main(["render", "jazz piano, 100 bpm", "-o", str(output), *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["duration_s"], result["bpm"]) == (1.5, 100.0)
    assert soundfile.info(output).duration == 1.5


def test_convert_makes_a_checkpoint_that_render_takes(riffusion_checkpoint, copy_of, tmp_path, capsys) -> None:
    legacy = with_legacy_weights(copy_of(riffusion_checkpoint))
    new = tmp_path / "new"
    render = ["render", "jazz", "--steps", "1", "--duration", "0.3", "-o", str(tmp_path / "a.wav"), "--model"]
    assert main([*render, str(legacy)]) == 4
    refused = capsys.readouterr().err
    assert "riff convert" in refused
    assert refused.count("\n") == 1
    assert main(["convert", str(legacy), "-o", str(new)]) == 0
    assert capsys.readouterr().out == f"{new}\n"
    assert main([*render, str(new)]) == 0
    assert main(["convert", str(legacy), "-o", str(new)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["convert", str(legacy), "-o", str(new), "--force", "--json"]) == 0


def test_info_shows_a_model_in_lines_and_as_json(mini_checkpoint, mini_config, capsys) -> None:
    assert main(["info", str(mini_checkpoint)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"model: {mini_checkpoint}" in lines
    assert "parts.unet: UNet2DConditionModel" in lines
    assert "config.n_mels: 32" in lines
    assert main(["info", str(mini_checkpoint), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"] == mini_config.to_dict()


def test_info_names_what_a_folder_lacks_to_be_a_checkpoint(tmp_path, capsys) -> None:
    assert main(["info", str(tmp_path)]) == 4
    assert capsys.readouterr().err == f"riff: error: {tmp_path} is no checkpoint: it has no model_index.json\n"


def test_info_on_a_strangers_sound_shows_its_tags_without_control_codes(tmp_path, capsys) -> None:
    import torch

    from riff.audio.io import save_audio

    path = save_audio(tmp_path / "a.wav", torch.zeros(1, 800), 8000, metadata={"title": "a\x1b[2Jb\nc"})
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert "not by riff" in out
    assert "\x1b" not in out
    assert "duration_s: 0.1" in out


@pytest.mark.parametrize(
    ("target", "code"),
    [("missing.wav", 2), ("missing.png", 2), ("no such model", 4), (".", 4), ("text.txt", 2)],
)
def test_info_on_nothing_is_one_line(tmp_path, monkeypatch, capsys, target, code) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("hello")
    assert main(["info", target]) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_device_is_the_environments_fault(mini_checkpoint, tmp_path, capsys) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    words = [
        "render",
        "jazz",
        "-o",
        str(tmp_path / "a.wav"),
        "--model",
        str(mini_checkpoint),
        "--device",
        "cuda",
    ]
    assert main(words) == 5
    assert "cuda" in capsys.readouterr().err


def test_key_tries_without_a_key_are_one_line(fake, tmp_path, capsys) -> None:
    assert main(["render", "jazz", "--key-tries", "3", "-o", str(tmp_path / "a.wav")]) == 2
    assert capsys.readouterr().err == "riff: error: --key-tries 3 needs --key, the key to look for\n"
