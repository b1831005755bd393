"""Sounds to pictures and back: the codec, and the encode and decode verbs."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from riff import RiffError, SpectrogramCodec, SpectrogramConfig, load_audio, read_png, save_audio, write_png
from riff.apps.cli import main
from riff.spectrogram.codec import Encoded
from riff.spectrogram.tempo import TempoMap
from tests.spectrogram.test_spectrogram import chirps

RIFFUSION = SpectrogramConfig.riffusion()


def loudness_db(waveform: torch.Tensor) -> float:
    return float(10 * waveform.square().mean().log10())


@pytest.mark.parametrize("config", [SpectrogramConfig(), RIFFUSION], ids=["riff-mini", "riffusion"])
def test_a_sound_comes_back_as_long_and_as_loud_as_it_was(config):
    sound = chirps(1.2, 44100)
    codec = SpectrogramCodec(config)
    encoded = codec.encode(sound, bpm=100.0)
    again = codec.decode(encoded.image, bpm=100.0, max_value=encoded.max_value, quality="fast")
    assert abs(again.shape[-1] - sound.shape[-1]) <= config.column_samples(bpm=100.0)
    assert abs(loudness_db(again) - loudness_db(sound)) < 1.0


def test_a_power_picture_of_unknown_loudness_is_brought_to_a_safe_peak():
    encoded = SpectrogramCodec(RIFFUSION).encode(0.01 * chirps(0.6, 44100))
    again = SpectrogramCodec(RIFFUSION).decode(encoded.image, quality="fast")
    assert float(again.abs().max()) == pytest.approx(0.89, abs=1e-3)


def test_silence_comes_back_as_silence():
    for config in (SpectrogramConfig(grid="seconds"), RIFFUSION):
        codec = SpectrogramCodec(config)
        encoded = codec.encode(torch.zeros(1, 20000))
        assert float(codec.decode(encoded.image, max_value=encoded.max_value).abs().max()) < 1e-6


def test_samples_that_are_not_finite_are_refused():
    with pytest.raises(RiffError, match="NaN or infinite samples"):
        SpectrogramCodec(RIFFUSION).encode(torch.full((1, 9000), float("inf")))


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return save_audio(tmp_path / "song.wav", chirps(1.0, 44100), 44100)


@pytest.mark.parametrize(
    ("options", "grid", "mels"),
    [([], "seconds", 256), (["--bpm", "96"], "beats", 256), (["--preset", "riffusion"], "seconds", 512)],
)
def test_encode_then_decode_needs_no_flags_to_give_the_length_back(song, tmp_path, capsys, options, grid, mels):
    picture, sound = tmp_path / "song.png", tmp_path / "again.flac"
    assert main(["encode", str(song), *options, "-o", str(picture)]) == 0
    assert main(["decode", str(picture), "-o", str(sound), "--quality", "fast"]) == 0
    assert capsys.readouterr().out == f"{picture}\n{sound}\n"
    _, config, made = read_png(picture)
    assert (config.grid, config.n_mels, made["source"]) == (grid, mels, "song.wav")
    waveform, rate = load_audio(sound)
    assert rate == 44100
    assert abs(waveform.shape[-1] - 44100) <= config.column_samples(bpm=96)


def test_riffusions_untagged_picture_is_played_as_it_would_play_it(tmp_path):
    # 100 columns of Riffusion's are 1 s; theirs lost the last hop, ours does not.
    pixels = np.full((512, 100, 3), 255, np.uint8)
    pixels[400:410] = 0
    PIL.Image.fromarray(pixels).save(tmp_path / "theirs.png")
    assert main(["decode", str(tmp_path / "theirs.png"), "-o", str(tmp_path / "a.wav"), "--preset", "riffusion"]) == 0
    waveform, rate = load_audio(tmp_path / "a.wav")
    assert waveform.shape == (1, 100 * 441)
    spectrum = torch.fft.rfft(waveform[0]).abs()
    # Rows 102 to 111 from the bottom of 512 HTK mels up to 10 kHz: 510 to 570 Hz.
    assert 505 < float(spectrum.argmax()) * rate / 44100 < 575


def test_a_folder_is_worked_through_past_a_bad_file_and_taken_up_again(song, tmp_path, capsys):
    music, pictures = tmp_path / "music", tmp_path / "pictures"
    music.mkdir()
    song.rename(music / "song.wav")
    (music / "broken.mp3").write_bytes(b"no music at all")
    assert main(["encode", str(music), "-o", str(pictures)]) == 2
    captured = capsys.readouterr()
    assert captured.out == f"{pictures / 'song.png'}\n"
    assert "1 of 2 inputs could not be used" in captured.err
    assert "broken.mp3" in captured.err
    before = (pictures / "song.png").stat().st_mtime_ns
    assert main(["encode", str(music), "-o", str(pictures), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["kept"] == 1
    assert (pictures / "song.png").stat().st_mtime_ns == before
    (music / "broken.mp3").unlink()
    assert main(["encode", str(music), "-o", str(pictures), "--force"]) == 0
    assert (pictures / "song.png").stat().st_mtime_ns > before
    assert main(["decode", str(pictures), "-o", str(tmp_path / "sounds"), "--format", "ogg", "--quality", "fast"]) == 0
    assert [path.name for path in (tmp_path / "sounds").iterdir()] == ["song.ogg"]


def test_a_decoded_loop_repeats_without_a_step(tmp_path):
    save_audio(tmp_path / "beat.wav", chirps(2.0, 44100), 44100)
    picture, sound = str(tmp_path / "beat.png"), str(tmp_path / "loop.wav")
    assert main(["encode", str(tmp_path / "beat.wav"), "--bpm", "120", "-o", picture]) == 0
    assert main(["decode", picture, "--loop", "-o", sound, "--quality", "fast"]) == 0
    waveform, _ = load_audio(sound)
    assert waveform.shape[-1] == 88200
    steps = waveform[0].repeat(2).diff().abs()
    assert float(steps[88199]) <= float(steps[:88199].max())


def test_clips_are_cut_at_random_places_and_again_at_the_same_ones(song, tmp_path, capsys):
    words = ["encode", str(song), "--clips", "3", "--duration", "0.25", "--seed", "4", "--format", "wav", "--json"]
    assert main([*words, "-o", str(tmp_path / "a")]) == 0
    first = json.loads(capsys.readouterr().out)["results"]
    assert [Path(result["path"]).name for result in first] == [f"song-000{number}.wav" for number in range(3)]
    assert len({result["start_s"] for result in first}) == 3
    assert main([*words, "-o", str(tmp_path / "b")]) == 0
    assert [result["start_s"] for result in json.loads(capsys.readouterr().out)["results"]] == [
        result["start_s"] for result in first
    ]
    whole, _ = load_audio(song)
    for result in first:
        cut, rate = load_audio(result["path"])
        assert cut.shape == (1, 11025)
        start = round(result["start_s"] * rate)
        # The place is printed to the millisecond.
        near = torch.nn.functional.conv1d(whole[None, :, start - 50 : start + 11025 + 50], cut[None]).max()
        assert float(near) > 0.99 * float(cut.square().sum())


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["encode", "missing.wav", "-o", "a.png"], "missing.wav does not exist"),
        (["encode", "{song}", "-o", "a.jpg"], "a.jpg"),
        (["encode", "{song}", "--preset", "riffusion", "--bpm", "90", "-o", "a.png"], "--bpm has no place"),
        (["encode", "{song}", "{song}", "-o", "a.png"], "give a folder, or for one result"),
        (["encode", "{folder}", "-o", "out"], "holds no file"),
        (["encode", "{song}", "--clips", "2", "-o", "out"], "needs --duration"),
        (["encode", "{song}", "--clips", "2", "--duration", "9", "-o", "out"], "shorter than"),
        (["decode", "{song}", "-o", "a.wav"], "cannot be read as a PNG"),
        (["decode", "missing.png", "-o", "a.wav"], "missing.png does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(song, tmp_path, monkeypatch, capsys, words, match):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    (empty / "inside").mkdir()
    filled = [word.format(song=song, folder=empty / "inside") for word in words]
    assert main(filled) == 2
    error = capsys.readouterr().err
    assert match in error
    assert error.count("\n") == 1
    assert [path.name for path in empty.rglob("*") if path.is_file()] == []


def test_a_beats_picture_without_a_tempo_asks_for_it(tmp_path, capsys):
    write_png(tmp_path / "bare.png", torch.rand(1, 256, 64), SpectrogramConfig())
    assert main(["decode", str(tmp_path / "bare.png"), "-o", str(tmp_path / "a.wav")]) == 2
    assert "give --bpm" in capsys.readouterr().err
    assert main(["decode", str(tmp_path / "bare.png"), "--bpm", "120", "-o", str(tmp_path / "a.wav")]) == 0


@pytest.mark.parametrize("bpm", [96.5, TempoMap.glide([(0.0, 90.0), (2.0, 120.0)]), None])
@pytest.mark.parametrize("max_value", [None, 3.25])
def test_what_is_written_beside_a_picture_is_read_back(tmp_path, bpm, max_value):
    config = SpectrogramConfig()
    before = Encoded(torch.rand(1, 256, 64), max_value, bpm)
    write_png(tmp_path / "a.png", before.image, config, metadata=before.metadata)
    image, read, made = read_png(tmp_path / "a.png")
    after = Encoded.read(image, read, made)
    assert (after.bpm, after.max_value) == (bpm, max_value)


def test_a_tempo_that_is_given_wins_over_the_picture_and_columns_of_seconds_have_none():
    picture, made = torch.rand(1, 256, 64), {"bpm": "90", "tempo": "damaged"}
    assert Encoded.read(picture, SpectrogramConfig(), made, bpm=120.0).bpm == 120.0
    assert Encoded.read(picture, SpectrogramConfig(grid="seconds"), made, bpm=120.0).bpm is None
    with pytest.raises(RiffError, match=r"odd\.png has a damaged tempo map.*; give its bpm"):
        Encoded.read(picture, SpectrogramConfig(), made, name="odd.png")


def test_a_strangers_map_of_more_than_two_hours_is_refused():
    # 64 columns are two beats; one hour each at 1/60 bpm, and a little more.
    slow = {"beats": [0], "seconds": [0], "tempi": [1 / 60.1], "slopes": [0]}
    with pytest.raises(RiffError, match="it makes 7212 s"):
        Encoded.read(torch.rand(1, 256, 64), SpectrogramConfig(), {"tempo": slow})
    hour = {"beats": [0], "seconds": [0], "tempi": [1 / 59.9], "slopes": [0]}
    assert Encoded.read(torch.rand(1, 256, 64), SpectrogramConfig(), {"tempo": hour}).bpm is not None


@pytest.mark.parametrize("config", [SpectrogramConfig(), SpectrogramConfig(grid="seconds"), RIFFUSION])
@pytest.mark.parametrize("samples", [44100, 44101, 50000, 7777, 300])
def test_decode_of_encode_has_as_many_samples_as_went_in(config, samples):
    codec = SpectrogramCodec(config)
    sound = chirps(1.2, 44100)[:, :samples]
    encoded = codec.encode(sound, bpm=97.0)
    assert codec.decode(encoded, quality="fast").shape == sound.shape
    image, _, made = encoded.image, config, encoded.metadata
    again = Encoded.read(image, config, json.loads(json.dumps(made)))
    assert torch.equal(codec.decode(again, quality="fast"), codec.decode(encoded, quality="fast"))


def test_a_file_decodes_to_the_samples_that_were_encoded(tmp_path):
    save_audio(tmp_path / "a.wav", chirps(1.0, 44100)[:, :43210], 44100)
    for options in ([], ["--bpm", "97"], ["--preset", "riffusion"]):
        assert main(["encode", str(tmp_path / "a.wav"), *options, "--force", "-o", str(tmp_path / "a.png")]) == 0
        assert main(["decode", str(tmp_path / "a.png"), "--force", "-o", str(tmp_path / "b.wav")]) == 0
        sound, _ = load_audio(tmp_path / "b.wav")
        assert sound.shape == (1, 43210)
        assert abs(loudness_db(sound) - loudness_db(load_audio(tmp_path / "a.wav")[0])) < 0.3


@pytest.mark.parametrize("config", [SpectrogramConfig(), RIFFUSION])
def test_a_decoded_sound_is_as_loud_as_the_encoded_one(config):
    sound = chirps(2.0, 44100)
    again = SpectrogramCodec(config).decode(SpectrogramCodec(config).encode(sound, bpm=110.0))
    assert abs(loudness_db(again) - loudness_db(sound)) < 0.3


@pytest.mark.parametrize("samples", [-1, 0, 1, 10**9, 10**400, "x", True, None, 1.5], ids=repr)
def test_a_false_length_in_a_file_changes_nothing(samples):
    codec = SpectrogramCodec(SpectrogramConfig(grid="seconds"))
    image = codec.encode(chirps(0.5, 44100)).image
    found = Encoded.read(image, codec.config, {"samples": samples})
    assert codec.decode(found, quality="fast").shape == (1, image.shape[-1] * 512)


def test_arrays_are_taken_as_tensors_are():
    codec, sound = SpectrogramCodec(RIFFUSION), chirps(0.5, 44100)
    encoded = codec.encode(sound)
    for other in (sound.numpy(), sound[0].numpy(), sound.double().numpy(), sound[0]):
        assert torch.equal(codec.encode(other).image, encoded.image)
    kept = {"max_value": encoded.max_value, "quality": "fast"}
    assert torch.equal(codec.decode(encoded.image.numpy(), **kept), codec.decode(encoded.image, **kept))


@pytest.mark.parametrize("sound", [np.zeros(99, np.int16), [[object()]], "x", np.zeros(99, bool), np.zeros(9) + 1j])
def test_what_is_no_sound_is_refused_in_one_line(sound):
    with pytest.raises(RiffError, match=r"the sound (is|holds)"):
        SpectrogramCodec(RIFFUSION).encode(sound)


def test_an_image_that_would_be_too_large_is_refused_before_any_work():
    config = SpectrogramConfig(grid="seconds", n_mels=512, hop_length=64, win_length=4096)
    with pytest.raises(RiffError, match="at most 67,108,864 are written"):
        SpectrogramCodec(config).encode(torch.zeros(1, 1).expand(1, 64 * 140_000))


def test_a_tempo_that_makes_days_of_an_image_is_refused():
    with pytest.raises(RiffError, match="the sound would last"):
        SpectrogramCodec().decode(torch.zeros(1, 256, 90_000), bpm=20.0)


@pytest.mark.parametrize("hop", [1, 2])
@pytest.mark.parametrize("n_fft", [2**18, 8192])
def test_a_small_file_cannot_ask_for_gigabytes(tmp_path, capsys, hop, n_fft):
    from PIL.PngImagePlugin import PngInfo

    fields = SpectrogramConfig(grid="seconds").to_dict() | {"n_fft": n_fft, "hop_length": hop, "n_mels": 256}
    chunks = PngInfo()
    chunks.add_text("riff", json.dumps({"config": fields, "metadata": {}}))
    PIL.Image.new("L", (4000, 256)).save(tmp_path / "a.png", pnginfo=chunks)
    assert main(["decode", str(tmp_path / "a.png"), "-o", str(tmp_path / "a.wav")]) == 2
    assert "at most 128 windows overlap" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.jpg", "b.png"])
def test_a_preset_holds_whatever_an_edited_image_says(tmp_path, name, capsys):
    picture = tmp_path / "a.png"
    save_audio(tmp_path / "a.wav", chirps(1.0, 44100), 44100)
    assert main(["encode", str(tmp_path / "a.wav"), "--bpm", "118", "-o", str(picture)]) == 0
    with PIL.Image.open(picture) as pixels:
        pixels.save(tmp_path / name, exif=pixels.getexif(), quality=95)
    assert main(["decode", str(tmp_path / name), "-o", str(tmp_path / "b.wav")]) == 2
    assert "use --preset riff and --bpm" in capsys.readouterr().err
    words = ["--preset", "riff", "--bpm", "118", "--quality", "fast"]
    assert main(["decode", str(tmp_path / name), *words, "-o", str(tmp_path / "b.wav")]) == 0
    assert abs(load_audio(tmp_path / "b.wav")[0].shape[-1] - 44100) < 800


def test_an_image_of_riffs_without_its_description_is_not_played_as_noise(tmp_path, capsys):
    save_audio(tmp_path / "a.wav", chirps(1.0, 44100), 44100)
    assert main(["encode", str(tmp_path / "a.wav"), "--bpm", "118", "-o", str(tmp_path / "a.png")]) == 0
    with PIL.Image.open(tmp_path / "a.png") as pixels:
        PIL.Image.fromarray(np.asarray(pixels)).save(tmp_path / "s.png")
        PIL.Image.fromarray(np.asarray(pixels.convert("RGB"))).save(tmp_path / "rgb.png")
    for name in ("s.png", "rgb.png"):
        assert main(["decode", str(tmp_path / name), "-o", str(tmp_path / "b.wav")]) == 2
        assert "does not say what it is" in capsys.readouterr().err
    for name in ("s.png", "rgb.png"):
        words = ["--preset", "riff", "--bpm", "118", "--quality", "fast"]
        assert main(["decode", str(tmp_path / name), *words, "-o", str(tmp_path / "b.wav"), "--force"]) == 0


@pytest.mark.parametrize("digits", [400, 5000])
@pytest.mark.parametrize("place", ["max_value", "bpm", "tempo", "samples"])
def test_a_number_of_any_length_in_an_image_never_ends_a_batch(tmp_path, capsys, digits, place):
    from PIL.PngImagePlugin import PngInfo

    number = "9" * digits
    tempo = f'{{"beats": [{number}], "seconds": [0], "tempi": [120], "slopes": [0]}}'
    value = tempo if place == "tempo" else number
    text = f'{{"config": {json.dumps(SpectrogramConfig().to_dict())}, "metadata": {{"{place}": {value}}}}}'
    chunks = PngInfo()
    chunks.add_text("riff", text)
    (tmp_path / "in").mkdir()
    PIL.Image.new("L", (32, 256)).save(tmp_path / "in/a.png", pnginfo=chunks)
    write_png(tmp_path / "in/b.png", torch.zeros(1, 256, 32), SpectrogramConfig(), metadata={"bpm": 120.0})
    assert main(["decode", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--quality", "fast"]) == 2
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'out/b.wav'}\n"
    assert "1 of 2 inputs could not be used" in captured.err
