"""A file can be made again from what it says, byte for byte; where it cannot, one line says why, and nothing a stranger
wrote into a file is loaded or believed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import riff
from riff import RiffPipeline, SpectrogramConfig, load_audio, read_png, save_audio, write_png
from riff.apps.cli import main
from riff.diffusion.fingerprint import file_hash, lora_hash, model_hash
from riff.tasks.provenance import provenance, read_recipe, sound_tags
from riff.tasks.replay import compare, describe_distance
from riff.utils.errors import RiffError

RATE = 8000
TIMELINE = """
bars: 3
keyframes:
  - {bar: 0, prompt: "slow jazz, 100 bpm", hold: 1}
  - {bar: 2, prompt: fast techno, bpm: 120}
"""
MADE = {
    "render.wav": ["render", "mellow jazz", "--bars", "2", "--negative", "drums", "--key", "A minor"],
    "free.wav": ["render", "mellow jazz, 100 bpm", "--bpm", "91.3", "--duration", "2.5", "--time", "3/4"],
    "loop.flac": ["render", "techno, 120 bpm", "--loop", "--bars", "2", "--scheduler", "dpm++"],
    "key.png": ["render", "techno", "--key", "F# minor", "--key-tries", "2", "--guidance", "3.3"],
    "walk.wav": ["walk", "mellow jazz, 100 bpm", "fast techno, 150 bpm", "--step", "3"],
    "round.flac": ["walk", "jazz", "techno", "--step", "3", "--loop", "--variation", "0.4", "--easing", "smooth"],
    "timeline.png": ["render", "song.yaml"],
    "timeline.ogg": ["render", "song.yaml"],
    "remix.wav": ["remix", "in.wav", "piano", "--strength", "0.45", "--key", "C major"],
    "extend.flac": ["extend", "in.wav", "piano", "--bars", "2", "--bpm", "120", "--downbeat", "0.25"],
    "inpaint.wav": [
        "inpaint",
        "in.wav",
        "piano",
        "--bars",
        "0",
        "1",
        "--bars",
        "2",
        "3",
        "--bpm",
        "120",
        "--high",
        "900",
    ],
    "inpaint.mp3": ["inpaint", "in.wav", "piano", "--seconds", "1", "2.5", "--low", "300"],
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a recording of three bars that clicks on the beat, and a timeline."""
    monkeypatch.chdir(tmp_path)
    sound = 0.05 * torch.randn(2, 6 * RATE, generator=torch.Generator().manual_seed(1))
    sound[:, :: RATE // 2] = 0.9
    save_audio("in.wav", sound, RATE)
    Path("song.yaml").write_text(TIMELINE)
    return tmp_path


@pytest.fixture
def make(here: Path, mini_checkpoint: Path) -> Callable[..., str]:
    """Make one of MADE with the tiny model."""

    def run(name: str, *words: str) -> str:
        options = ["--model", str(mini_checkpoint), "--device", "cpu", "--steps", "2", "--quality", "fast"]
        assert main([*MADE[name], *options, "--seed", "3", "--quiet", "-o", name, *words]) == 0
        return name

    return run


def source_of(name: str) -> list[str]:
    return ["--source", "in.wav"] if MADE[name][0] in ("remix", "extend", "inpaint") else []


def one_line(capsys: Any) -> str:
    """What was said, which must be one line and no traceback."""
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert "defect" not in err
    return str(err)


# The same again


@pytest.mark.parametrize("name", MADE)
def test_a_replay_is_the_same_byte_for_byte(make, mini_checkpoint, capsys, name) -> None:
    file = make(name)
    capsys.readouterr()
    assert main(["replay", file, "--model", str(mini_checkpoint), "--device", "cpu", *source_of(name)]) == 0
    printed = capsys.readouterr()
    again = f"{Path(name).stem}-again{Path(name).suffix}"
    assert printed.out.strip() == again
    assert printed.err.splitlines()[-1] == "the same, byte for byte"
    assert Path(again).read_bytes() == Path(file).read_bytes()


def test_another_name_of_the_same_model_is_the_same_and_another_format_holds_the_same(
    make, mini_checkpoint, copy_of, capsys
) -> None:
    file, copy = make("loop.flac"), copy_of(mini_checkpoint)
    capsys.readouterr()
    assert main(["replay", file, "--model", str(copy), "-o", "again.flac", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"path": "again.flac", "from": "loop.flac", "same": "bytes", "differences": []}
    assert main(["replay", file, "--model", str(copy), "-o", "again.wav", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] == "content"
    assert main(["replay", file, "--model", str(copy), "-o", "again.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] == "not compared"


def test_a_replay_drops_guidance_where_the_file_did(make, mini_checkpoint, capsys) -> None:
    file = make("render.wav", "--guidance", "4", "--guidance-interval", "0", "1")
    capsys.readouterr()
    assert main(["replay", file, "--model", str(mini_checkpoint), "--device", "cpu", "-o", "again.wav"]) == 0
    assert Path("again.wav").read_bytes() == Path(file).read_bytes()
    usual = make("render.wav", "--guidance", "4", "--force")
    assert Path(usual).read_bytes() != Path("again.wav").read_bytes()


def test_a_clip_from_python_is_replayed_but_one_from_latents_is_not(here, pipe, mini_checkpoint, capsys) -> None:
    quick = {"num_inference_steps": 2, "quality": "fast"}
    generator = torch.Generator().manual_seed(5)
    clip = pipe(["piano", "<jazz>, 90 bpm"], generator=generator, **quick).clips[1]
    clip.save("a.wav")
    assert main(["replay", "a.wav", "--model", str(mini_checkpoint), "--quiet"]) == 0
    assert compare("a.wav", "a-again.wav") == "bytes"
    latents = torch.randn(1, 8, 4, 8, generator=generator)
    pipe("jazz", latents=latents, **quick).clips[0].save("b.wav")
    capsys.readouterr()
    assert main(["replay", "b.wav"]) == 2
    assert "latents" in one_line(capsys)


def test_a_seed_beyond_32_bits_is_replayed_and_one_from_before_the_hash_too(
    here, pipe, mini_checkpoint, capsys
) -> None:
    """Files from before seeds were hashed do not say so; of their seeds torch heeded the lowest 32 bits."""
    quick = {"num_inference_steps": 1, "quality": "fast"}
    pipe("piano", seed=5 + 2**32, **quick)[0].save("new.wav")
    assert main(["replay", "new.wav", "--model", str(mini_checkpoint), "--quiet"]) == 0
    assert compare("new.wav", "new-again.wav") == "bytes"
    small = pipe("piano", seed=5, **quick)[0]
    made = {**small.provenance, "seed": str(5 + 2**32)}
    save_audio("old.wav", small.waveform, small.sample_rate, metadata=sound_tags(made))
    assert main(["replay", "old.wav", "--model", str(mini_checkpoint), "--quiet"]) == 0
    assert compare("old.wav", "old-again.wav") == "content"


def test_what_a_recording_said_of_its_tempo_is_remembered(here, pipe, mini_checkpoint, capsys) -> None:
    """riff's own files say their tempo; the replay must use it although it is given the bare samples."""
    pipe("jazz, 110 bpm", bars=2, num_inference_steps=1, quality="fast", seed=1).clips[0].save("own.wav")
    assert main(["remix", "own.wav", "piano", "-o", "a.wav", "--model", str(mini_checkpoint), "--steps", "1"]) == 0
    save_audio("bare.flac", *load_audio("own.wav"))  # the same samples, without tags
    assert main(["replay", "a.wav", "--model", str(mini_checkpoint), "--source", "bare.flac"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "the same, byte for byte"


# What is not the same


def test_another_model_is_refused_before_it_is_loaded_and_heard_on_request(
    make, here, mini_checkpoint, copy_of, monkeypatch, capsys
) -> None:
    from safetensors.torch import load_file, save_file

    file, other = make("render.wav"), copy_of(mini_checkpoint)
    weights = other / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: 1.5 * tensor for name, tensor in load_file(weights).items()}, weights)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(RiffPipeline, "from_pretrained", lambda *a, **k: pytest.fail("the model was loaded"))
        assert main(["replay", file, "--model", str(other)]) == 4
    line = one_line(capsys)
    assert model_hash(mini_checkpoint)[:16] in line
    assert model_hash(other)[:16] in line
    assert not Path("render-again.wav").exists()
    assert main(["replay", file, "--model", str(other), "--anyway"]) == 0
    line = one_line(capsys)
    assert "differs" in line
    assert "model hash" in line


def test_another_version_is_refused_and_named(make, mini_checkpoint, monkeypatch, capsys) -> None:
    file = make("render.wav")
    monkeypatch.setattr("riff.tasks.replay.__version__", "9.9")
    capsys.readouterr()
    assert main(["replay", file, "--model", str(mini_checkpoint)]) == 2
    line = one_line(capsys)
    assert "riff 9.9" in line
    assert f"riff {riff.__version__}" in line
    assert main(["replay", file, "--model", str(mini_checkpoint), "--anyway"]) == 0
    assert "software 'riff 0" in capsys.readouterr().err


def test_a_file_that_was_changed_is_found_out(make, mini_checkpoint, capsys) -> None:
    """Its tags are as they were and its sound is not: that has an exit code of its own, and nothing is written."""
    from riff.audio.io import read_metadata

    file = make("render.wav")
    waveform, rate = load_audio(file)
    save_audio(file, waveform.flip(-1), rate, metadata=read_metadata(file))
    capsys.readouterr()
    assert main(["replay", file, "--model", str(mini_checkpoint)]) == 3
    assert "differs from render.wav (nothing that it names has changed" in one_line(capsys)
    assert not Path("render-again.wav").exists()
    assert main(["replay", file, "--model", str(mini_checkpoint), "-o", "b.wav"]) == 3
    assert "b.wav differs" in one_line(capsys)
    assert Path("b.wav").exists()


def test_a_lora_is_found_by_its_hash_and_missed_by_name(make, here, mini_checkpoint, capsys) -> None:
    from tests.apps.test_cli_canvas import save_lora

    lora = save_lora(mini_checkpoint, here / "lora")
    file = make("render.wav", "--lora", f"{lora}:0.7")
    plain = make("free.wav")
    words = ["--model", str(mini_checkpoint)]
    capsys.readouterr()
    assert main(["replay", file, *words]) == 4
    line = one_line(capsys)
    assert lora_hash(Path(lora))[:16] in line
    assert "pytorch_lora_weights" in line
    Path(lora).rename("rock.safetensors")
    assert main(["replay", file, *words, "--lora", "rock.safetensors"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "the same, byte for byte"
    assert main(["replay", plain, *words, "--lora", "rock.safetensors"]) == 2
    assert "was not made with the LoRA" in one_line(capsys)
    assert main(["info", file]) == 0
    assert "made.loras: pytorch_lora_weights at 0.7 (hash " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "words", "match"),
    [
        ("remix.wav", [], "give it with --source"),
        ("remix.wav", ["--source", "other.wav"], "give the right one"),
        ("remix.wav", ["--source", "missing.wav"], "does not exist"),
        ("render.wav", ["--source", "in.wav"], "leave --source out"),
    ],
)
def test_a_missing_or_wrong_source_is_one_line(make, mini_checkpoint, capsys, name, words, match) -> None:
    save_audio("other.wav", torch.zeros(1, RATE), RATE)
    file = make(name)
    capsys.readouterr()
    assert main(["replay", file, "--model", str(mini_checkpoint), *words]) == 2
    assert match in one_line(capsys)
    assert not list(Path().glob("*-again*"))


def test_an_output_in_the_way_is_kept(make, mini_checkpoint, capsys) -> None:
    file = make("render.wav")
    before = Path(file).read_bytes()
    capsys.readouterr()
    assert main(["replay", file, "--model", str(mini_checkpoint), "-o", file, "--force"]) == 2
    assert "is the file that is replayed" in one_line(capsys)
    Path("render-again.wav").write_text("mine")
    assert main(["replay", file, "--model", str(mini_checkpoint)]) == 2
    assert Path("render-again.wav").read_text() == "mine"
    assert Path(file).read_bytes() == before


# Without metadata


@pytest.mark.parametrize("name", ["render.wav", "loop.flac", "timeline.ogg", "inpaint.mp3", "key.png"])
def test_without_metadata_only_the_mark_is_left(make, capsys, name) -> None:
    file = make(name, "--no-metadata")
    content = Path(file).read_bytes()
    assert b"trainedAlgorithmicMedia" in content or "trainedAlgorithmicMedia".encode("utf-16-le") in content
    for word in ("jazz", "techno", "piano", "riff-tiny", "riff 0"):
        assert word.encode() not in content
        assert word.encode("utf-16-le") not in content
    capsys.readouterr()
    assert main(["info", file]) == 0
    assert "made: by a machine; how was left out" in capsys.readouterr().out
    assert main(["replay", file]) == 2
    assert "its recipe was left out" in one_line(capsys)


# Hostile recipes

GOOD = {"model_hash": "0" * 64, "seed": 1, "steps": 2, "bpm": 120.0, "guidance": 2.0}


def write(path: str, made: dict[str, Any] | str) -> str:
    """A sound or a picture with somebody's recipe in it."""
    if path.endswith(".png"):
        config = SpectrogramConfig(n_mels=32)
        told = made if isinstance(made, dict) else {"origin": "machine-made", "software": made}
        write_png(path, torch.zeros(1, 32, 64), config, metadata=told)
    else:
        comment = made if isinstance(made, str) else json.dumps(made)
        save_audio(path, torch.zeros(1, RATE), RATE, metadata={"comment": comment})
    return path


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a model nor a hub may be touched."""
    for place in ("riff.diffusion.hub.locate", "riff.diffusion.hub.locate", "riff.diffusion.hub._download"):
        monkeypatch.setattr(place, lambda *a, **k: pytest.fail("a model was looked for"))


@pytest.mark.parametrize("model", ["owner/name", "/etc", "../../evil", "riff-mini2", "http://x/y", "C:\\evil"])
@pytest.mark.parametrize("file", ["a.wav", "a.png"])
def test_a_model_that_only_the_file_names_is_not_loaded(here, nothing_loads, capsys, file, model) -> None:
    write(file, provenance("jazz", model=model, **GOOD))
    assert main(["replay", file]) == 4
    line = one_line(capsys)
    assert "is not loaded unasked" in line
    assert "--trust-model" in line


def test_a_trusted_model_is_what_the_file_names(here, mini_checkpoint, capsys) -> None:
    digest = model_hash(mini_checkpoint)
    made = provenance("jazz", model=str(mini_checkpoint), **GOOD | {"model_hash": digest})
    write("a.wav", made)
    assert main(["replay", "a.wav", "--trust-model", "--anyway", "--device", "cpu"]) == 0
    assert "differs" in one_line(capsys)


def test_riff_mini_by_name_is_the_one_in_the_package_and_its_hash_counts(here, capsys) -> None:
    Path("riff-mini").mkdir()
    write("a.wav", provenance("jazz", model="riff-mini", **GOOD))
    assert main(["replay", "a.wav"]) == 4
    assert "give the right one with --model" in one_line(capsys)


BAD = {
    "seed": ["-1", "1e3", "9" * 30, "9" * 5000, "nan", "", "x" * 100_000],
    "steps": ["0", "151", "2.5", "1000000000", "none"],
    "guidance": ["nan", "inf", "-1", "1e999"],
    "guidance_interval": ["nan", "[0.5]", "[0, 1.1]", "[0.5, 0.5]", "half", "[0, NaN]", "{}"],
    "bpm_asked": ["0", "1e9", "nan"],
    "bars": ["0", "513", "1.5"],
    "duration": ["601", "inf", "0"],
    "quality": ["perfect", "\x1b[2J"],
    "loop": ["1", "yes"],
    "keyscale": ["H major", "../x"],
    "timesignature": ["5/4"],
    "key_tries": ["17", "-1"],
    "scheduler": ["__import__('os')", "a.b", "x" * 100],
    "model": ["", "a\nb", "x" * 1000],
    "model_hash": ["abc", "G" * 64],
    "prompt": ["", "   ", "x" * 10_001, "jazz ((("],
    "negative_prompt": ["x" * 10_001],
    "config": ["{", "[]", '{"sample_rate": -1}', '{"sample_rate": 1e400}', '{"evil": 1}', "[" * 100_000],
    "loras": ["{", "{}", "[1]", '[{"name": 1}]', json.dumps([{"name": "a", "digest": "b", "weight": 1}]), "[[]" * 9],
    "timeline": ["{", "[1]", '{"bars": 1}', "[" * 100_000, '{"bars": 1e400, "keyframes": []}'],
    "task": ["interpolate", "os.system", "x" * 5000, "remix"],
    "dtype": ["float 32", "../x"],
    "source": ["in.wav", "/etc/passwd"],
}


@pytest.mark.parametrize(("field", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_value_out_of_range_is_one_line_and_loads_nothing(here, nothing_loads, capsys, field, value) -> None:
    made = provenance("jazz", model="owner/name", **GOOD) | {field: value}
    for file in ("a.wav", "a.png"):
        write(file, made)
        assert main(["replay", file, "--model", "owner/name"]) == 2
        line = one_line(capsys)
        assert "recipe that cannot be replayed" in line or "damaged recipe" in line
        assert len(line) < 1000
        assert "\x1b" not in line


@pytest.mark.parametrize("task", ["remix", "extend", "inpaint"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"strength": "2", "bars": "0", "regions": "[]"},
        {"strength": "nan", "bars": "x", "regions": "[[1, 1e400]]"},
        {"strength": "", "bars": "9999", "regions": '[["a", 2]]'},
        {"strength": "x", "bars": "-3", "regions": "[" * 90_000},
        {"strength": "1e9", "bars": "1.5", "regions": "[[0, 1]]", "band": "[1]"},
    ],
)
def test_an_edits_values_are_checked_too(here, nothing_loads, capsys, task, fields) -> None:
    made = provenance("jazz", model="riff-mini", **GOOD) | {"task": task, "source": "0" * 64} | fields
    write("a.wav", made)
    assert main(["replay", "a.wav", "--source", "in.wav"]) == 2
    assert "recipe" in one_line(capsys)


@pytest.mark.parametrize("value", [None, 3, 1.5, True, [], {"a": 1}, ["x"]])
def test_a_value_of_another_type_is_one_line(here, nothing_loads, capsys, value) -> None:
    made: dict[str, Any] = dict(provenance("jazz", model="riff-mini", **GOOD))
    for field in ("prompt", "seed", "config", "model", "timeline", "loras", "software"):
        write("a.png", made | {field: value})
        assert main(["replay", "a.png", "--model", "owner/name"]) == 2, field
        one_line(capsys)
        assert main(["info", "a.png"]) == 0
        capsys.readouterr()


@pytest.mark.parametrize(
    "comment",
    [
        "x" * 900_000,
        "{" * 100_000,
        "[" * 100_000,
        '{"software": "riff 1", "a": ' + "[" * 900 + "]" * 900 + "}",
        '{"software": "riff 1", "seed": ' + "9" * 100_000 + "}",
        '{"software": "riff 1"}',
        '{"software": "riff 1", "seed": NaN, "steps": Infinity}',
        '{"software": 7}',
        json.dumps({"software": "riff 1", **{f"field {number}": "x" for number in range(50_000)}}),
        '"riff 1"',
        "null",
        "{}",
    ],
    ids=range(12),
)
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_a_hostile_comment_is_one_line_for_replay_and_short_for_info(
    here, nothing_loads, capsys, suffix, comment
) -> None:
    write(f"a{suffix}", comment)
    assert main(["replay", f"a{suffix}"]) == 2
    one_line(capsys)
    assert main(["info", f"a{suffix}"]) == 0
    out = capsys.readouterr().out
    assert len(out) < 100_000
    assert out.count("\n") < 200


def test_a_huge_chunk_is_not_read_and_a_damaged_tag_says_nothing(here, capsys) -> None:
    """Tags that riff cannot have written: beyond its own limit of a megabyte, or cut in the middle."""
    import struct

    write("a.wav", provenance("jazz", model="owner/name", **GOOD))
    content = Path("a.wav").read_bytes()
    body = b"INFO" + b"ICMT" + struct.pack("<I", 3_000_000) + b'{"software": "riff 1"' + b" " * 2_999_978 + b"}"
    Path("b.wav").write_bytes(content + b"LIST" + struct.pack("<I", len(body)) + body)
    assert main(["replay", "b.wav"]) == 2
    assert "does not say that riff made it" in one_line(capsys)
    for suffix in (".flac", ".ogg", ".mp3"):
        write(f"c{suffix}", provenance("jazz", model="owner/name", **GOOD))
        whole = Path(f"c{suffix}").read_bytes()
        for place in range(4, min(len(whole), 400), 9):
            Path(f"d{suffix}").write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            assert main(["replay", f"d{suffix}"]) in (2, 4)
            one_line(capsys)


@pytest.mark.parametrize("file", ["missing.wav", "empty.png", "notes.wav", "."])
def test_what_is_no_file_of_riffs_is_one_line(here, capsys, file) -> None:
    Path("empty.png").write_bytes(b"")
    Path("notes.wav").write_text("hello")
    assert main(["replay", file]) == 2
    one_line(capsys)


def test_a_strangers_file_has_no_recipe(here) -> None:
    with pytest.raises(RiffError, match="does not say that riff made it"):
        read_recipe("in.wav")


# Hashes


def test_a_models_hash_is_that_of_what_is_loaded(mini_checkpoint, copy_of) -> None:
    digest, copy = model_hash(mini_checkpoint), copy_of(mini_checkpoint)
    (copy / "README.md").write_text("hello")
    (copy / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not loaded")
    assert model_hash(copy) == digest
    for name in ("spectrogram_config.json", "scheduler/scheduler_config.json", "vae/config.json"):
        before = (copy / name).read_bytes()
        (copy / name).write_bytes(before + b"\n")
        assert model_hash(copy) != digest
        (copy / name).write_bytes(before)
    assert model_hash(copy) == digest


def test_a_large_file_is_sampled_and_not_read_twice(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("riff.diffusion.fingerprint.WHOLE_BYTES", 1 << 20)
    path = tmp_path / "large.safetensors"
    path.write_bytes(os.urandom(3 << 20))
    first = file_hash(path)
    monkeypatch.setattr("riff.diffusion.fingerprint._sampled", lambda *a: pytest.fail("it was read again"))
    assert file_hash(path) == first
    monkeypatch.undo()
    monkeypatch.setattr("riff.diffusion.fingerprint.WHOLE_BYTES", 1 << 20)
    path.write_bytes(os.urandom(3 << 20))
    assert file_hash(path) != first


# From picture to sound and back


def test_a_picture_played_and_a_sound_drawn_keep_their_account_and_the_mark(make, capsys) -> None:
    picture, sound = make("key.png"), make("render.wav")
    assert main(["decode", picture, "-o", "b.wav", "--quality", "fast"]) == 0
    assert main(["encode", sound, "-o", "b.png"]) == 0
    capsys.readouterr()
    for file, task in (("b.wav", "decode"), ("b.png", "encode")):
        assert b"trainedAlgorithmicMedia" in Path(file).read_bytes()
        assert main(["info", file]) == 0
        assert {f"made.task: {task}", "made.seed: 3"} <= set(capsys.readouterr().out.splitlines())
        assert main(["replay", file]) == 2
        assert f"its task is '{task}'" in one_line(capsys)


def test_a_recording_that_is_drawn_gets_no_mark(here) -> None:
    assert main(["encode", "in.wav", "-o", "b.png", "--quiet"]) == 0
    assert b"trainedAlgorithmicMedia" not in Path("b.png").read_bytes()
    assert "origin" not in read_png("b.png")[2]


def test_files_are_compared_by_bytes_and_by_content(here) -> None:
    waveform, rate = load_audio("in.wav")
    save_audio("tagged.wav", waveform, rate, metadata=sound_tags({"software": "riff 1", "prompt": "x"}))
    save_audio("other.wav", -waveform, rate)
    assert [compare("in.wav", name) for name in ("in.wav", "tagged.wav", "other.wav")] == [
        "bytes",
        "content",
        "different",
    ]


@pytest.mark.parametrize("threads", [(1, 2), (2, 1), (3, 1)])
def test_a_file_comes_again_on_any_number_of_threads(make, mini_checkpoint, threads):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads[0])
        name = make("render.wav")
        assert read_recipe(name).threads == threads[0]
        torch.set_num_threads(threads[1])
        assert main(["replay", name, "--model", str(mini_checkpoint), "--quiet", "-o", "again.wav"]) == 0
        assert torch.get_num_threads() == threads[1]
    finally:
        torch.set_num_threads(before)
    assert Path(name).read_bytes() == Path("again.wav").read_bytes()


@pytest.mark.parametrize("threads", ["0", "-1", "1025", "1e3", "two", "9" * 5000])
def test_a_false_number_of_threads_is_refused(tmp_path, threads):
    made = provenance("x", model="riff-mini", seed=1, steps=2) | {"threads": threads}
    save_audio(tmp_path / "a.wav", torch.zeros(1, 99), RATE, metadata=sound_tags(made))
    with pytest.raises(RiffError, match="threads is"):
        read_recipe(tmp_path / "a.wav")


def test_how_far_apart_two_files_are_is_said_in_steps(tmp_path):
    config = SpectrogramConfig(n_mels=8, n_fft=512, win_length=256, hop_length=64, grid="seconds")
    image = torch.full((1, 8, 4), 0.5)
    write_png(tmp_path / "a.png", image, config)
    image[0, 3, 1:3] += 2 / 255
    write_png(tmp_path / "b.png", image, config)
    assert (
        describe_distance(tmp_path / "a.png", tmp_path / "b.png") == "2 of 32 pixels differ, by at most 2 steps of 255"
    )
    write_png(tmp_path / "c.png", image[..., :3], config)
    assert describe_distance(tmp_path / "a.png", tmp_path / "c.png").startswith("images of (1, 8, 4) and (1, 8, 3)")
    sound = torch.zeros(1, 1000)
    save_audio(tmp_path / "a.wav", sound, RATE)
    sound[0, 7] = 1 / 32768
    save_audio(tmp_path / "b.flac", sound, RATE)
    text = describe_distance(tmp_path / "a.wav", tmp_path / "b.flac")
    assert text == "1 of 1,000 samples differ, by at most 1 step of 32,768"
    save_audio(tmp_path / "c.wav", sound[:, :9], RATE)
    text = describe_distance(tmp_path / "a.wav", tmp_path / "c.wav")
    assert text == f"1 channel of 1,000 samples at {RATE} Hz and 1 channel of 9 samples at {RATE} Hz"
