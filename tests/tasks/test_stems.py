"""Remixing some stems of a recording: what was not chosen stays, and what is new lies on the whole's beats."""

import json
import math
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from riff.apps.cli import main
from riff.audio.io import resample, save_audio
from riff.music.alignment import LEVEL, Recording, align_stem, align_to_grid
from riff.tasks.clip import PEAK
from riff.tasks.provenance import read_recipe
from riff.tasks.stems import (
    STEMS,
    StemSelection,
    check_demucs,
    check_stems,
    choose_stems,
    demucs_separator,
    load_htdemucs,
    recorded_stems,
    separator_of,
    split_stems,
)
from riff.utils.errors import ModelError, RiffError, SystemProblem

RATE = 8000
QUICK = {"num_inference_steps": 2, "quality": "fast", "seed": 1}
ON_BEATS = {"bpm": 120.0, "downbeat": 0.0, "sample_rate": RATE}


def parts(bars: float, *, channels: int = 1, rate: int = RATE, loud: float = 1.0) -> dict[str, torch.Tensor]:
    """Drums on every beat at 120 bpm, and a steady chord, each ``(C, T)``; the right channel is half as loud."""
    time = torch.arange(round(bars * 2 * rate)) / rate
    since = time % 0.5
    drums = torch.exp(-since * 20) * torch.sin(2 * math.pi * 110 * since) * torch.where(time % 2 < 0.5, 0.4, 0.2)
    chord = sum(0.05 * torch.sin(2 * math.pi * hertz * time) for hertz in (220.0, 277.2, 329.6))
    named = {"drums": loud * drums, "bass": loud * chord}
    return {name: torch.stack([part, 0.5 * part][:channels]) for name, part in named.items()}


def planted(truth: dict[str, torch.Tensor], *, leak: float = 0.0):
    """A separator that knows the truth, but for what it leaves over of each stem."""

    def separate(waveform: torch.Tensor, sample_rate: int) -> dict[str, torch.Tensor]:
        return {name: part * (1 - leak) for name, part in truth.items()}

    return separate


@pytest.mark.parametrize("names", [["drums"], ["bass"], ["bass", "drums"]])
def test_kept_and_chosen_add_up_to_the_recording_and_what_is_left_over_is_kept(names):
    truth = parts(2, channels=2)
    whole = truth["drums"] + truth["bass"]
    kept, chosen = split_stems(whole, RATE, StemSelection(tuple(names), planted(truth, leak=0.25), {}))
    torch.testing.assert_close(kept + chosen, whole, rtol=0, atol=1e-7)
    torch.testing.assert_close(chosen, 0.75 * sum(truth[name] for name in names), rtol=0, atol=1e-6)


@pytest.mark.parametrize("which", ["pipe", "riffusion_pipe"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_remix_of_stems_is_the_rest_and_the_stems_remixed_by_themselves(which, channels, request):
    pipe, truth = (
        request.getfixturevalue(which),
        parts(3.3, channels=channels, loud=0.05),
    )  # so that nothing is turned down
    whole = truth["drums"] + truth["bass"]
    options = {"strength": 0.5, **ON_BEATS, **QUICK}
    clip = pipe.remix(whole, "techno", stems=["drums"], separator=planted(truth), **options)
    assert clip.waveform.shape == whole.shape
    alone = pipe.remix(truth["drums"], "techno", **options)
    torch.testing.assert_close(clip.waveform, truth["bass"] + alone.waveform, rtol=1e-4, atol=1e-6)
    assert float((clip.waveform - whole).abs().max()) > 1e-3
    assert clip.settings["stems"] == '["drums"]'


def test_at_another_rate_the_rest_is_the_recordings_and_the_length_is_exact(pipe):
    truth = parts(3, channels=2, rate=11025, loud=0.05)
    whole = truth["drums"] + truth["bass"]
    options = {**ON_BEATS, **QUICK, "sample_rate": 11025, "strength": 0.5}
    clip = pipe.remix(whole, "techno", stems=["drums"], separator=planted(truth), **options)
    alone = pipe.remix(truth["drums"], "techno", **options).waveform
    rest = resample(truth["bass"], 11025, RATE)
    assert clip.waveform.shape == rest.shape
    torch.testing.assert_close(clip.waveform, alone + rest, rtol=1e-4, atol=1e-6)


def test_what_would_be_louder_than_a_file_can_hold_is_turned_down_as_a_whole(pipe):
    options = {"stems": ["drums"], "strength": 0.5, **ON_BEATS, **QUICK}
    clips = []
    for loud in (0.05, 2.0):
        truth = parts(2, loud=loud)
        clips.append(pipe.remix(truth["drums"] + truth["bass"], "techno", separator=planted(truth), **options))
    quiet, loud = (clip.waveform for clip in clips)
    assert float(loud.abs().max()) == pytest.approx(PEAK)
    torch.testing.assert_close(loud, quiet / quiet.abs().max() * PEAK, rtol=1e-2, atol=1e-2)


def test_a_stem_without_a_beat_lies_on_the_beats_of_the_whole(pipe, recwarn):
    truth = parts(8)
    clip = pipe.remix(
        truth["drums"] + truth["bass"], "techno", stems=["bass"], separator=planted(truth), sample_rate=RATE, **QUICK
    )
    assert clip.bpm == pytest.approx(120.0, rel=0.01)
    assert not [warning for warning in recwarn if "even grid" in str(warning.message)]


def test_a_stem_is_drawn_at_the_models_level_however_quiet_it_is(pipe):
    truth = parts(4)
    laid = align_to_grid(
        Recording(truth["drums"] + truth["bass"], RATE), pipe.config, bpm=120.0, downbeat=0.5, beats_per_bar=4
    )
    part = align_stem(Recording(truth["bass"] * 0.01, RATE), laid, pipe.config)
    sounding = part.waveform[..., part.lead :]
    assert 20 * math.log10(float(sounding.square().mean().sqrt())) == pytest.approx(LEVEL, abs=0.1)
    assert (part.tempo, part.lead, part.waveform.shape) == (laid.tempo, laid.lead, laid.waveform.shape)
    torch.testing.assert_close(sounding[0] / part.gain, truth["bass"] * 0.01, rtol=1e-4, atol=1e-7)


def test_a_remix_of_stems_says_so_and_an_own_separator_cannot_be_replayed(pipe, tmp_path: Path):
    truth = parts(2)
    clip = pipe.remix(
        truth["drums"] + truth["bass"], "techno", stems=["drums"], separator=planted(truth), **ON_BEATS, **QUICK
    )
    with pytest.raises(RiffError, match="separated by a function that was given"):
        read_recipe(clip.save(tmp_path / "a.wav"))
    assert recorded_stems({"stems": '["drums", "bass"]', "separator": "htdemucs"}) == ["drums", "bass"]
    assert recorded_stems({"strength": "0.5"}) is None


@pytest.mark.parametrize("stems", ["{", "[]", '"drums"', "3", '["triangle"]', "[[" * 400 + "]]" * 400, "null"])
def test_stems_in_a_file_that_are_none_are_one_line(stems):
    with pytest.raises(RiffError) as caught:
        recorded_stems({"stems": stems, "separator": "htdemucs"})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("stems", "message"),
    [
        (["drum"], "there is no stem 'drum'; did you mean drums\\? known are drums, bass, other, vocals"),
        (["piano"], "there is no stem 'piano'; known are"),
        (["Vocals"], "did you mean vocals"),
        ([], "use a list of one or more of"),
        ("drums", "use a list"),
        ([3], "stems is 3; use text"),
    ],
)
def test_a_stem_that_is_not_known_is_one_line_before_anything_is_loaded(pipe, stems, message, monkeypatch):
    monkeypatch.setattr("riff.tasks.stems.demucs_separator", lambda **_: pytest.fail("it was loaded"))
    with pytest.raises(RiffError, match=message) as caught:
        pipe.remix(parts(2)["drums"], "techno", stems=stems, **ON_BEATS, **QUICK)
    assert "\n" not in str(caught.value)


def test_stems_are_taken_in_one_order_and_once():
    assert check_stems(["vocals", "drums", "vocals"]) == ("drums", "vocals")
    assert check_stems(STEMS) == STEMS


@pytest.mark.parametrize(
    ("separate", "message"),
    [
        (lambda sound, rate: {"drums": sound[:, 1:], "bass": sound}, "the same shape"),
        (lambda sound, rate: {"drums": sound * math.nan, "bass": sound}, "finite"),
        (lambda sound, rate: {"bass": sound}, "there is no stem 'drums'; known are bass"),
        (lambda sound, rate: {"drums": sound * 1e-4, "bass": sound}, "no drums can be heard"),
        (lambda sound, rate: {"drums": sound * 0, "bass": sound}, "no drums can be heard"),
    ],
    ids=["shape", "not finite", "missing", "noise", "silent"],
)
def test_what_a_separator_gives_is_checked(pipe, separate, message):
    with pytest.raises(RiffError, match=message):
        pipe.remix(parts(2)["bass"], "techno", stems=["drums"], separator=separate, **ON_BEATS, **QUICK)


def test_silence_has_no_stems(pipe):
    silence = torch.zeros(1, 4 * RATE)
    with pytest.raises(RiffError, match="no drums can be heard"):
        pipe.remix(silence, "techno", stems=["drums"], separator=lambda s, r: {"drums": s}, **ON_BEATS, **QUICK)


def test_a_separator_without_stems_is_one_line():
    with pytest.raises(RiffError, match="say which stems"):
        choose_stems(None, planted({}), device="cpu")
    assert choose_stems(None, None, device="cpu") is None


# The command


def test_the_command_asks_for_stems(tmp_path, monkeypatch, mini_checkpoint):
    truth = parts(2)
    monkeypatch.setattr("riff.tasks.stems.check_demucs", lambda: None)
    monkeypatch.setattr(
        "riff.tasks.stems.demucs_separator", lambda *, device: planted(truth | {"other": truth["bass"] * 0})
    )
    monkeypatch.chdir(tmp_path)
    save_audio("in.wav", truth["drums"] + truth["bass"], RATE)
    words = ["--bpm", "120", "--downbeat", "0", "--steps", "2", "--model", str(mini_checkpoint), "--seed", "3"]
    assert main(["remix", "in.wav", "techno", "--stems", "bass, drums", *words, "-o", "a.wav"]) == 0
    recipe = read_recipe("a.wav")
    assert recipe.request.stems == ["drums", "bass"]
    assert main(["replay", "a.wav", "--source", "in.wav", "--model", str(mini_checkpoint), "-o", "b.wav"]) == 0
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()


@pytest.mark.parametrize(("names", "code", "told"), [("drum", 2, "did you mean drums"), ("", 2, "there is no stem ''")])
def test_the_command_names_an_unknown_stem_on_one_line(names, code, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_audio("in.wav", parts(2)["drums"], RATE)
    assert main(["remix", "in.wav", "techno", "--stems", names, "-o", "a.wav"]) == code
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1
    assert not Path("a.wav").exists()


def test_without_the_extra_one_line_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "demucs.htdemucs", None)
    monkeypatch.chdir(tmp_path)
    save_audio("in.wav", parts(2)["drums"], RATE)
    assert main(["remix", "in.wav", "techno", "--stems", "drums", "-o", "a.wav"]) == SystemProblem.exit_code
    said = capsys.readouterr().err
    assert "python -m pip install 'riff-music[stems]'" in said and said.count("\n") == 1
    with pytest.raises(SystemProblem):
        check_demucs()


# Demucs itself, with random weights


@pytest.fixture(scope="module")
def small_demucs():
    """The architecture of htdemucs, small and for 8000 samples per second."""
    htdemucs = pytest.importorskip("demucs.htdemucs")
    torch.manual_seed(0)
    options = {"channels": 8, "t_layers": 1, "t_heads": 2, "samplerate": RATE, "segment": Fraction(2)}
    return htdemucs.HTDemucs(list(STEMS), **options).eval()


@pytest.fixture
def exported(small_demucs, tmp_path: Path) -> Path:
    """Its file, as Demucs' package writes those on the Hub."""
    from safetensors.torch import save_file

    words, options = small_demucs._init_args_kwargs
    told = {
        name: json.dumps(value, default=lambda f: {"_type": "fraction", "numerator": f.numerator, "denominator": 1})
        for name, value in (("args", list(words)), ("kwargs", options))
    }
    path = tmp_path / "separator.safetensors"
    save_file(small_demucs.state_dict(), path, {"klass": "demucs.htdemucs.HTDemucs", **told})
    return path


def test_demucs_gives_stems_of_the_recordings_rate_channels_and_length(small_demucs):
    separate = separator_of(small_demucs)
    for channels, rate in ((1, 11025), (2, RATE)):
        truth = parts(1.3, channels=channels, rate=rate)
        whole = truth["drums"] + truth["bass"]
        found = separate(whole, rate)
        assert tuple(found) == STEMS
        assert all(part.shape == whole.shape and bool(part.isfinite().all()) for part in found.values())
        kept, chosen = split_stems(whole, rate, StemSelection(("drums", "vocals"), separate, {}))
        torch.testing.assert_close(kept + chosen, whole, rtol=0, atol=1e-6)
        torch.testing.assert_close(chosen, found["drums"] + found["vocals"])  # the same again, without chance


def test_demucs_hears_a_quiet_recording_as_a_loud_one(small_demucs):
    sound = parts(1.2, channels=2)["drums"]
    loud, quiet = (separator_of(small_demucs)(sound * gain, RATE) for gain in (1.0, 0.01))
    for name in STEMS:
        torch.testing.assert_close(quiet[name] * 100, loud[name], rtol=1e-2, atol=1e-4)


def test_exported_weights_are_read_back(small_demucs, exported):
    loaded = load_htdemucs(exported)
    assert (loaded.sources, loaded.samplerate, loaded.segment) == (list(STEMS), RATE, 2)
    for name, value in small_demucs.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


@pytest.mark.parametrize("damage", ["class", "structure", "arguments", "cut", "no metadata"])
def test_weights_that_are_no_htdemucs_are_refused_and_nothing_is_run(exported, damage, tmp_path, monkeypatch):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(exported, framework="pt") as file:
        told = dict(file.metadata())
    monkeypatch.setattr("os.system", lambda _: pytest.fail("it was run"))
    told |= {
        "class": {"klass": "os.system", "args": '["id"]', "kwargs": "{}"},
        "structure": {"structure": '{"_class": "os.system"}'},
        "arguments": {"kwargs": '{"channels": "many"}'},
    }.get(damage, {})
    path = tmp_path / "damaged.safetensors"
    save_file(load_file(exported), path, None if damage == "no metadata" else told)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"damaged\.safetensors") as caught:
        load_htdemucs(path)
    assert "\n" not in str(caught.value)


def test_without_weights_and_without_a_network_one_line_says_so(monkeypatch, tmp_path):
    pytest.importorskip("demucs")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"weights of htdemucs .* go online once, or unset HF_HUB_OFFLINE") as caught:
        demucs_separator()
    assert "\n" not in str(caught.value)


def test_demucs_remixes_a_stem_end_to_end(pipe, exported, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: str(exported))
    truth = parts(1.6, channels=2)
    whole = truth["drums"] + truth["bass"]
    clip = pipe.remix(whole, "techno", stems=["drums"], **ON_BEATS, **QUICK)
    assert clip.waveform.shape == whole.shape
    assert (clip.settings["stems"], clip.settings["separator"]) == ('["drums"]', "htdemucs")
