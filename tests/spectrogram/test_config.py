"""The config: presets in numbers, exact lengths, refusals that name the field."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest

from riff.spectrogram.config import CONFIG_NAME, SpectrogramConfig
from riff.utils.errors import ModelError, RiffError, SystemProblem


def test_riffusion_preset_is_riffusions_numbers():
    config = SpectrogramConfig.riffusion()
    milliseconds = {name: getattr(config, name) / 44.1 for name in ("hop_length", "win_length", "n_fft")}
    assert milliseconds == {"hop_length": 10.0, "win_length": 100.0, "n_fft": 400.0}
    assert config.sample_rate / config.n_fft == 2.5
    assert (config.sample_rate, config.n_mels, config.f_min, config.f_max) == (44100, 512, 0.0, 10000.0)
    assert (config.mel_scale, config.norm) == ("htk", None)
    assert (config.amplitude, config.power, config.grid) == ("power", 0.25, "seconds")
    assert (config.channels, config.width) == (1, 512)


def test_riffusion_stereo_differs_only_in_its_channels():
    mono, stereo = SpectrogramConfig.riffusion(), SpectrogramConfig.riffusion(stereo=True)
    assert stereo == dataclasses.replace(mono, channels=2)
    assert stereo.stereo == "left-right"


def test_the_default_is_riff_minis():
    config = SpectrogramConfig()
    assert (config.sample_rate, config.n_mels, config.width, config.channels) == (44100, 256, 256, 1)
    assert (config.amplitude, config.grid, config.frames_per_beat) == ("decibel", "beats", 32)
    assert config.width == 8 * config.frames_per_beat


def test_columns_on_the_seconds_grid_are_exactly_hops():
    config = SpectrogramConfig.riffusion()
    # Riffusion itself loses a hop here: 225 351 samples.
    assert config.frames_to_samples(512) == 225_792
    assert config.frames_to_samples(1) == 441
    assert config.frames_to_samples(0) == 0
    assert config.frames_to_samples(512, bpm=90.0) == 225_792


@pytest.mark.parametrize("bpm", [50, 84, 93.75, 120, 179.5])
def test_columns_on_the_beats_grid_last_their_beats(bpm):
    config = SpectrogramConfig()
    eight_beats = 8 * 60 / bpm * 44100
    assert abs(config.frames_to_samples(256, bpm=bpm) - eight_beats) <= 0.5
    assert config.column_samples(bpm=bpm) == pytest.approx(eight_beats / 256)


def test_rounding_never_accumulates_over_columns():
    config = SpectrogramConfig()
    assert config.frames_to_samples(1000 * 256, bpm=84) == round(1000 * 8 * 60 / 84 * 44100)


@pytest.mark.parametrize("bpm", [None, 0, -120, math.nan, math.inf])
def test_the_beats_grid_needs_a_tempo(bpm):
    with pytest.raises(RiffError, match=r"bpm is .* needs a tempo"):
        SpectrogramConfig().frames_to_samples(256, bpm=bpm)


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SpectrogramConfig().n_mels = 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sample_rate": 0}, "sample_rate is 0; use a whole number"),
        ({"hop_length": -1}, "hop_length is -1"),
        ({"n_mels": 256.0}, "n_mels is 256.0"),
        (
            {"n_mels": 2048, "f_min": 100.0},
            r"mel band 2 \(102.4 to 104.8 Hz\) holds no bin of a 8192 point transform",
        ),
        ({"width": True}, "width is True"),
        ({"n_fft": "8192"}, "n_fft is '8192'"),
        ({"f_min": -1.0}, "f_min is -1.0; use a finite number"),
        ({"f_max": math.nan}, "f_max is nan"),
        ({"power": math.inf}, "power is inf"),
        ({"reference": None}, "reference is None"),
        ({"power": 0}, "greater than 0"),
        ({"db_range": 0.0}, "greater than 0"),
        ({"mel_scale": "bark"}, r"mel_scale is 'bark'; use one of \('htk', 'slaney'\)"),
        ({"norm": "l2"}, "norm is 'l2'"),
        ({"amplitude": "linear"}, "amplitude is 'linear'"),
        ({"channels": 3}, "channels is 3"),
        ({"stereo": "ms"}, "stereo is 'ms'"),
        ({"grid": "frames"}, "grid is 'frames'"),
        ({"f_max": 22051.0}, "half the sample rate"),
        ({"f_min": 16000.0}, r"f_min < f_max"),
        ({"win_length": 10000}, "hop_length <= win_length <= n_fft"),
        ({"hop_length": 5000}, "hop_length <= win_length <= n_fft"),
    ],
)
def test_a_field_out_of_range_is_named_in_one_line(fields, message):
    with pytest.raises(RiffError, match=message) as caught:
        SpectrogramConfig(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [SpectrogramConfig(), SpectrogramConfig.riffusion(), SpectrogramConfig(channels=2, norm="slaney")],
)
def test_it_survives_json_and_a_folder(tmp_path, config):
    assert SpectrogramConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    config.save(tmp_path)
    assert SpectrogramConfig.load(tmp_path) == config


def test_a_folder_without_a_config_is_riffusions(tmp_path):
    assert SpectrogramConfig.load(tmp_path) == SpectrogramConfig.riffusion()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"spectrogram_config\.json is not valid JSON"),
        ('{"colour": 1}', r"unknown spectrogram config field\(s\) \['colour'\]"),
        ("[1]", "JSON object"),
        ('{"n_mels": 0}', "n_mels is 0"),
    ],
)
def test_a_damaged_config_is_named(tmp_path, text, message):
    (tmp_path / CONFIG_NAME).write_text(text)
    with pytest.raises(RiffError, match=message):
        SpectrogramConfig.load(tmp_path)


def test_missing_fields_take_their_defaults():
    assert SpectrogramConfig.from_dict({}) == SpectrogramConfig()


def test_exit_codes_are_the_designs():
    assert (RiffError.exit_code, ModelError.exit_code, SystemProblem.exit_code) == (2, 4, 5)
    assert issubclass(ModelError, RiffError)
    assert issubclass(SystemProblem, RiffError)
    assert issubclass(RiffError, ValueError)


def test_config_errors_and_files_import_nothing_heavy():
    heavy = ["torch", "numpy", "scipy", "PIL", "soundfile", "librosa", "diffusers", "transformers"]
    code = f"import sys, riff.spectrogram.config, riff.utils.errors, riff.utils.files; print([name for name in {heavy!r} if name in sys.modules])"  # noqa: E501
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "fields",
    [
        {"n_fft": 2**18, "n_mels": 512},
        {"n_fft": 2**18, "hop_length": 1, "win_length": 4096},
        {"hop_length": 1},
        {"n_fft": 2**18, "win_length": 2**18, "hop_length": 2**17, "n_mels": 8},
    ],
)
def test_a_geometry_that_needs_gigabytes_is_refused(fields):
    with pytest.raises(
        RiffError, match=r"numbers at once; at most 33,554,432 are held, so use|at most 128 windows overlap"
    ):
        SpectrogramConfig(**{**dataclasses.asdict(SpectrogramConfig()), **fields})


VALUES = [10**400, -(10**400), 10**5000, 1e308, math.inf, math.nan, None, [], {}, "x", True, -1]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(SpectrogramConfig)])
def test_any_value_of_any_field_is_a_config_or_one_line(name, value):
    try:
        SpectrogramConfig.from_dict({name: value})
    except RiffError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 400
