"""Pictures: the amplitude scales in closed form, 8-bit PNG, and Riffusion's files."""

import dataclasses
import io
import json
import math
import os

import numpy
import PIL.Image
import pytest
import torch
from PIL.PngImagePlugin import PngInfo
from torch.testing import assert_close

from riff.spectrogram.config import SpectrogramConfig
from riff.spectrogram.image import image_to_mel, image_to_pil, mel_to_image, pil_to_image
from riff.spectrogram.png import EXIF_TAGS, config_to_exif, exif_to_config, read_png, write_png
from riff.utils.errors import RiffError

DECIBEL = dataclasses.replace(SpectrogramConfig(), n_mels=8)
POWER = dataclasses.replace(SpectrogramConfig.riffusion(), n_mels=8)
STEREO = dataclasses.replace(SpectrogramConfig.riffusion(stereo=True), n_mels=8)
CONFIGS = {
    "decibel mono": DECIBEL,
    "decibel stereo": dataclasses.replace(DECIBEL, channels=2),
    "power mono": POWER,
    "power stereo": STEREO,
}


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def names(folder):
    return sorted(os.listdir(folder))


# The scales


def test_decibel_scale_in_closed_form():
    config = dataclasses.replace(DECIBEL, reference=100.0, db_range=80.0)
    mel = torch.tensor([100.0, 1.0, 0.01, 1e-9, 0.0, 5000.0, 10.0, 100.0 * 10 ** (-20 / 20)])
    image = mel_to_image(mel.view(1, 8, 1), config).flip(-2).flatten()
    assert_close(image, torch.tensor([1.0, 0.5, 0.0, 0.0, 0.0, 1.0, 0.75, 0.75]), atol=1e-6, rtol=0)


def test_power_scale_is_riffusions_formula():
    mel = noise(1, 8, 5) * 1e7
    expected = 255 - (mel.double() / mel.double().max()) ** 0.25 * 255
    assert_close(mel_to_image(mel, POWER).flip(-2).double() * 255, expected, atol=1e-4, rtol=0)


def test_row_0_is_the_highest_frequency():
    for config, loud in ((DECIBEL, 1.0), (POWER, 0.0)):
        mel = torch.zeros(1, 8, 3)
        mel[:, 7] = config.reference
        image = mel_to_image(mel, config)
        assert_close(image[:, 0], torch.full((1, 3), loud))
        assert_close(image[:, 1:], torch.full((1, 7, 3), 1.0 - loud))


def test_silence_is_black_or_white_and_comes_back_as_exact_silence():
    silence = torch.zeros(2, 1, 8, 4)
    assert torch.equal(mel_to_image(silence, DECIBEL), torch.zeros(2, 1, 8, 4))
    assert torch.equal(mel_to_image(silence, POWER), torch.ones(2, 1, 8, 4))
    assert torch.equal(image_to_mel(torch.zeros(1, 8, 4), DECIBEL), torch.zeros(1, 8, 4))
    assert torch.equal(image_to_mel(torch.ones(1, 8, 4), POWER), torch.zeros(1, 8, 4))


def test_the_maximum_is_taken_per_clip_over_all_its_channels():
    mel = noise(3, 2, 8, 5) * torch.tensor([1.0, 100.0, 1e6]).view(3, 1, 1, 1)
    mel[:, 1] *= 0.1
    images = mel_to_image(mel, STEREO)
    for one, image in zip(mel, images, strict=True):
        assert_close(mel_to_image(one, STEREO), image)
        assert image[0].min() == 0.0
        assert image[1].min() > 0.3


def test_decibel_round_trip_is_exact_inside_the_range():
    floor = 10 ** (-DECIBEL.db_range / 20)
    mel = DECIBEL.reference * (floor * 1.001 + noise(2, 1, 8, 50) * (1 - floor * 1.001))
    assert_close(image_to_mel(mel_to_image(mel, DECIBEL), DECIBEL), mel, rtol=1e-5, atol=0)


def test_power_round_trip_is_exact_with_the_maximum():
    mel = 3.0 + 500.0 * noise(1, 8, 50)
    image = mel_to_image(mel, POWER)
    assert_close(image_to_mel(image, POWER, max_value=float(mel.max())), mel, rtol=1e-5, atol=0)
    assert_close(image_to_mel(image, POWER), mel * (30e6 / mel.max()), rtol=1e-5, atol=0)


def test_a_given_maximum_makes_clips_comparable_and_clips_what_is_louder():
    mel = torch.tensor([0.0, 1.0, 16.0, 81.0]).repeat(2).view(1, 8, 1)
    image = mel_to_image(mel, POWER, max_value=16.0).flip(-2).flatten()[:4]
    assert_close(image, torch.tensor([1.0, 0.5, 0.0, 0.0]))


def test_pixels_outside_the_range_are_clipped():
    for config in (DECIBEL, POWER):
        wild = torch.full((1, 8, 2), 1.5)
        assert_close(image_to_mel(wild, config), image_to_mel(wild.clamp(0, 1), config))
        assert_close(image_to_mel(-wild, config), image_to_mel(0 * wild, config))


def test_precision_is_float32_or_wider():
    mel = noise(1, 8, 4)
    assert mel_to_image(mel.half(), DECIBEL).dtype == torch.float32
    assert mel_to_image(mel.bfloat16(), POWER).dtype == torch.float32
    assert mel_to_image(mel.double(), DECIBEL).dtype == torch.float64
    assert image_to_mel(mel.half(), DECIBEL).dtype == torch.float32


def test_the_input_is_not_changed():
    mel = noise(1, 8, 4)
    copy = mel.clone()
    mel_to_image(mel, DECIBEL)
    image_to_mel(mel, POWER)
    assert torch.equal(mel, copy)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_impossible_magnitudes_are_refused(value):
    with pytest.raises(RiffError, match="negative, NaN or infinite"):
        mel_to_image(torch.full((1, 8, 2), value), DECIBEL)


def test_nan_pixels_are_refused():
    with pytest.raises(RiffError, match="NaN"):
        image_to_mel(torch.full((1, 8, 2), float("nan")), DECIBEL)


@pytest.mark.parametrize("shape", [(8, 2), (8,), (1, 8, 0), (0, 1, 8, 2)])
def test_wrong_shapes_are_refused(shape):
    for function in (mel_to_image, image_to_mel):
        with pytest.raises(RiffError, match="shape"):
            function(torch.zeros(shape), DECIBEL)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_maximum_is_refused(value):
    with pytest.raises(RiffError, match="max_value"):
        image_to_mel(torch.zeros(1, 8, 2), POWER, max_value=value)


# PNG


@pytest.mark.parametrize("name", CONFIGS)
def test_a_png_brings_back_picture_config_and_metadata(tmp_path, name):
    config = CONFIGS[name]
    image = noise(config.channels, 8, 20)
    metadata = {"prompt": "bossa nova ♪", "seed": 7, "max_value": 12.5}
    assert write_png(tmp_path / "a.png", image, config, metadata=metadata) == tmp_path / "a.png"
    back, config_back, metadata_back = read_png(tmp_path / "a.png")
    assert_close(back, image, atol=0.5 / 255 + 1e-6, rtol=0)
    assert config_back == config
    assert metadata_back == metadata
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("name", CONFIGS)
def test_all_256_levels_survive_exactly(tmp_path, name):
    config = CONFIGS[name]
    image = (torch.arange(256).view(8, 32) / 255).repeat(config.channels, 1, 1)
    write_png(tmp_path / "a.png", image, config)
    assert_close(read_png(tmp_path / "a.png")[0], image, atol=0, rtol=0)


def test_pixels_are_rounded_not_truncated():
    image = torch.tensor([0.4, 0.6, 99.4, 99.6, 254.4, 254.6, 255.0, 0.0]).view(1, 8, 1) / 255
    assert numpy.asarray(image_to_pil(image, DECIBEL))[:, 0].tolist() == [0, 1, 99, 100, 254, 255, 255, 0]


def test_rounding_has_no_bias_in_decibels():
    config = dataclasses.replace(SpectrogramConfig.riffusion(), n_mels=64)
    mel = 10 ** (noise(1, 64, 400) * 2)
    image = mel_to_image(mel, config)
    back = image_to_mel(pil_to_image(image_to_pil(image, config), config), config, max_value=float(mel.max()))
    error = 20 * torch.log10(back / mel)
    assert abs(float(error.mean())) < 0.01
    assert float(error.std()) < 0.15


def test_planes_are_riffusions(tmp_path):
    image = noise(2, 8, 4)
    pixels = (image * 255).round().byte().numpy()
    mono = numpy.asarray(image_to_pil(image[:1], POWER))
    assert all((mono[..., plane] == pixels[0]).all() for plane in range(3))
    for config in (STEREO, CONFIGS["decibel stereo"]):
        stereo = numpy.asarray(image_to_pil(image, config))
        assert (stereo[..., 0] == 0).all()
        assert (stereo[..., 1] == pixels[0]).all()
        assert (stereo[..., 2] == pixels[1]).all()
    assert image_to_pil(image[:1], DECIBEL).mode == "L"


def test_the_same_picture_gives_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, noise(1, 8, 30), DECIBEL, metadata={"seed": 1})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.wav"])
def test_only_png_is_written(tmp_path, name):
    with pytest.raises(RiffError, match=r"suffix .*\.png"):
        write_png(tmp_path / name, noise(1, 8, 4), DECIBEL)
    assert names(tmp_path) == []


def test_bad_pictures_and_metadata_leave_no_file(tmp_path):
    good, path = noise(1, 8, 4), tmp_path / "a.png"
    for bad, message in ((good[0], "shape"), (good[:, :7], "shape"), (good * math.nan, "NaN")):
        with pytest.raises(RiffError, match=message):
            write_png(path, bad, DECIBEL)
    for metadata, message in (
        ({"x": math.nan}, "JSON"),
        ({"x": object()}, "JSON"),
        ({"max_value": "9"}, "max_value"),
    ):
        with pytest.raises(RiffError, match=message):
            write_png(path, good, DECIBEL, metadata=metadata)
    assert names(tmp_path) == []


def test_an_existing_png_is_kept_without_force(tmp_path):
    write_png(tmp_path / "a.png", noise(1, 8, 4), DECIBEL)
    with pytest.raises(RiffError, match="--force"):
        write_png(tmp_path / "a.png", noise(1, 8, 5), DECIBEL, force=False)
    assert read_png(tmp_path / "a.png")[0].shape == (1, 8, 4)


# Riffusion's files


def riffusion_picture(path, pixels, tags, **options):
    exif = PIL.Image.Exif()
    for number, value in tags.items():
        exif[number] = value
    PIL.Image.fromarray(pixels).save(path, exif=exif, **options)


def random_pixels(height=512, width=20):
    grey = numpy.random.default_rng(0).integers(0, 256, (height, width, 1), dtype=numpy.uint8)
    return numpy.repeat(grey, 3, axis=-1)


RIFFUSION_TAGS = {
    11000: 44100,
    11005: 0,
    11010: 10,
    11020: 100,
    11030: 400,
    11040: 512,
    11050: 0,
    11060: 10000,
    11070: 0.25,
    11080: 1234567.0,
}


def test_the_presets_tags_are_exactly_riffusions(tmp_path):
    config = SpectrogramConfig.riffusion()
    write_png(tmp_path / "a.png", noise(1, 512, 4), config, metadata={"max_value": 1234567.0})
    with PIL.Image.open(tmp_path / "a.png") as picture:
        tags = dict(picture.getexif())
    assert tags == RIFFUSION_TAGS
    assert {number: type(value) for number, value in tags.items()} == {
        number: type(value) for number, value in RIFFUSION_TAGS.items()
    }
    assert config_to_exif(SpectrogramConfig.riffusion(stereo=True))[11005] == 1


@pytest.mark.filterwarnings("ignore:.*detail that it lost")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_a_tagged_riffusion_picture_is_read_with_its_maximum(tmp_path, name):
    riffusion_picture(tmp_path / name, random_pixels(), RIFFUSION_TAGS)
    image, config, metadata = read_png(tmp_path / name)
    assert config == SpectrogramConfig.riffusion()
    assert metadata == {"max_value": 1234567.0}
    assert image.shape == (1, 512, 20)


def test_other_parameters_are_read_from_the_tags(tmp_path):
    tags = {**RIFFUSION_TAGS, 11000: 22050, 11005: 1, 11040: 256, 11050: 20, 11060: 11000, 11070: 0.5}
    riffusion_picture(tmp_path / "a.png", random_pixels(256), tags)
    image, config, _ = read_png(tmp_path / "a.png")
    # int(22050 * 0.010) = 220: Riffusion cuts.
    assert (config.hop_length, config.win_length, config.n_fft) == (220, 2205, 8820)
    assert (config.channels, config.stereo, config.power) == (2, "left-right", 0.5)
    assert (config.f_min, config.f_max, config.n_mels) == (20.0, 11000.0, 256)
    assert image.shape == (2, 256, 20)


def test_a_picture_without_tags_has_riffusions_defaults_and_as_many_mels_as_rows(tmp_path):
    PIL.Image.fromarray(random_pixels()).save(tmp_path / "a.png")
    assert read_png(tmp_path / "a.png")[1:] == (SpectrogramConfig.riffusion(), {})
    PIL.Image.fromarray(random_pixels(300)).save(tmp_path / "b.png")
    assert read_png(tmp_path / "b.png")[1] == dataclasses.replace(SpectrogramConfig.riffusion(), n_mels=300)


@pytest.mark.filterwarnings("ignore:.*detail that it lost")
def test_a_stereo_picture_without_tags_is_known_by_its_empty_red_plane(tmp_path):
    pixels = random_pixels()
    pixels[..., 0] = 0
    for name, options in (("a.png", {}), ("a.jpg", {"quality": 75})):
        PIL.Image.fromarray(pixels).save(tmp_path / name, **options)
        image, config, _ = read_png(tmp_path / name)
        assert config == SpectrogramConfig.riffusion(stereo=True)
        assert image.shape[0] == 2


def test_what_may_be_heard_of_a_picture_is_noted(tmp_path):
    picture = PIL.Image.fromarray(random_pixels())
    picture.save(tmp_path / "a.jpg")
    with pytest.warns(UserWarning, match="is a JPEG: detail that it lost may be audible"):
        read_png(tmp_path / "a.jpg")
    picture.convert("RGBA").save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match="transparency, which is ignored"):
        read_png(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore:.*(transparency|detail that it lost|does not say what)")
@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
def test_every_mode_is_read(tmp_path, mode):
    levels = numpy.linspace(0, 255, 16).round().astype(numpy.uint8)
    if mode == "1":
        levels = (levels > 127).astype(numpy.uint8) * 255
    pixels = numpy.tile(levels, (16, 1))
    if mode == "I;16":
        picture = PIL.Image.fromarray(pixels.astype(numpy.uint16) * 257)
    else:
        grey = PIL.Image.fromarray(pixels)
        picture = grey.convert("RGB").convert(mode) if mode == "CMYK" else grey.convert(mode)
    name = "a.jpg" if mode == "CMYK" else "a.png"
    picture.save(tmp_path / name, **({"quality": 100} if mode == "CMYK" else {}))
    image, _, _ = read_png(tmp_path / name)
    expected = torch.from_numpy(pixels / 255).float()[None]
    assert_close(image, expected, atol=0.02 if mode == "CMYK" else 1e-6, rtol=0)


def test_foreign_exif_is_tolerated(tmp_path):
    riffusion_picture(tmp_path / "a.png", random_pixels(), {274: 6, 271: "a camera", 37500: b"\0\1"})
    with pytest.warns(UserWarning, match="read as they are stored"):
        image, config, _ = read_png(tmp_path / "a.png")
    assert config == SpectrogramConfig.riffusion()
    assert image.shape == (1, 512, 20)
    riffusion_picture(tmp_path / "b.png", random_pixels(), {**RIFFUSION_TAGS, 271: "a camera"})
    assert read_png(tmp_path / "b.png")[2] == {"max_value": 1234567.0}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("garbage", [b"", b"Exif\0\0", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", bytes(50)])
def test_damaged_exif_does_not_hide_the_pixels(tmp_path, garbage):
    PIL.Image.fromarray(random_pixels()).save(tmp_path / "a.png", exif=garbage)
    assert read_png(tmp_path / "a.png")[1] == SpectrogramConfig.riffusion()


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), -3.0])
def test_a_useless_stored_maximum_is_ignored_as_riffusion_does(tmp_path, value):
    riffusion_picture(tmp_path / "a.png", random_pixels(), {**RIFFUSION_TAGS, 11080: value})
    assert read_png(tmp_path / "a.png")[2] == {}


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({11000: 0}, r"hop_length is 0|sample_rate is 0"),
        ({11000: "fast"}, "not a number"),
        ({11040: 256}, "512 pixels high and its description says 256"),
        ({11060: 30000}, "f_max"),
        ({11070: float("nan")}, "not finite"),
        ({11070: 0.0}, "power"),
        ({11010: 1000}, "hop_length"),
    ],
)
def test_tags_out_of_range_are_named(tmp_path, tags, message):
    riffusion_picture(tmp_path / "a.png", random_pixels(), {**RIFFUSION_TAGS, **tags})
    with pytest.raises(RiffError, match=message) as caught:
        read_png(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


def test_missing_tags_are_named_rather_than_guessed():
    tags = {number: value for number, value in RIFFUSION_TAGS.items() if number != 11070}
    with pytest.raises(RiffError, match="lack POWER_FOR_IMAGE"):
        exif_to_config(tags)


def test_a_decibel_picture_that_lost_its_chunk_is_not_taken_for_riffusions(tmp_path):
    write_png(tmp_path / "a.png", noise(1, 8, 4), DECIBEL)
    with PIL.Image.open(tmp_path / "a.png") as picture:
        picture.save(tmp_path / "b.png", exif=picture.getexif(), pnginfo=PngInfo())
    with pytest.raises(RiffError, match="lack STEP_SIZE_MS, POWER_FOR_IMAGE"):
        read_png(tmp_path / "b.png")


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
@pytest.mark.parametrize("hop", [64, 333, 441, 512])
def test_lengths_in_samples_survive_the_tags(rate, hop):
    config = dataclasses.replace(
        POWER, sample_rate=rate, hop_length=hop, win_length=4 * hop, n_fft=8 * hop + 1, f_max=rate / 2
    )
    back, maximum = exif_to_config(config_to_exif(config))
    assert (back, maximum) == (config, None)


def test_riffusions_own_arithmetic_arrives_at_the_same_hop():
    for hop in range(64, 1000):
        tags = config_to_exif(dataclasses.replace(POWER, hop_length=hop))
        assert int(tags[11010] / 1000 * tags[11000]) == hop


def test_tag_numbers_are_distinct_and_complete():
    assert len(set(EXIF_TAGS.values())) == 10
    assert exif_to_config({274: 1}) is None


# Bad files


def test_unreadable_pictures_are_named_in_one_line(tmp_path):
    buffer = io.BytesIO()
    PIL.Image.fromarray(random_pixels()).save(buffer, format="PNG")
    whole = buffer.getvalue()
    tiff = io.BytesIO()
    PIL.Image.fromarray(random_pixels()).save(tiff, format="TIFF")
    contents = {
        "empty": b"",
        "text": b"hello, I am a picture",
        "wav": b"RIFF\0\0\0\0WAVEfmt ",
        "header": whole[:20],
        "quarter": whole[: len(whole) // 4],
        "most": whole[:-200],
        "tiff": tiff.getvalue(),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.png").write_bytes(content)
        with pytest.raises(RiffError, match=rf"{name}\.png") as caught:
            read_png(tmp_path / f"{name}.png")
        assert "\n" not in str(caught.value)
        assert "0x" not in str(caught.value)
    for path in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(RiffError, match=r"does not exist|is a folder"):
            read_png(path)


@pytest.mark.parametrize("size", [(60000, 60000), (9000, 9000)])
def test_a_picture_too_large_to_decode_is_refused_by_its_header(tmp_path, size):
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = b"IDAT" + zlib.compress(bytes(1000))
    content += struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(RiffError, match=r"pixels"):
        read_png(tmp_path / "bomb.png")


def test_a_text_bomb_is_refused(tmp_path):
    chunks = PngInfo()
    chunks.add_text("riff", "x" * 5_000_000, zip=True)
    PIL.Image.fromarray(random_pixels()).save(tmp_path / "a.png", pnginfo=chunks)
    assert (tmp_path / "a.png").stat().st_size < 100_000
    with pytest.raises(RiffError, match=r"a\.png"):
        read_png(tmp_path / "a.png")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '"x"',
        '{"config": 3}',
        '{"config": {"n_mels": "many"}}',
        '{"config": {"colour": 1}}',
        '{"config": {}, "metadata": 4}',
        "[" * 100_000,
        json.dumps({"config": {"n_mels": 7}}),
    ],
)
def test_a_damaged_riff_chunk_is_named(tmp_path, text):
    chunks = PngInfo()
    chunks.add_text("riff", text)
    PIL.Image.fromarray(random_pixels(8)).save(tmp_path / "a.png", pnginfo=chunks)
    with pytest.raises(RiffError, match=r"riff description|describes itself|its description says") as caught:
        read_png(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


def test_random_damage_gives_a_picture_or_a_riff_error(tmp_path):
    write_png(tmp_path / "good.png", noise(1, 8, 40), DECIBEL, metadata={"prompt": "x"})
    good = (tmp_path / "good.png").read_bytes()
    rng = numpy.random.default_rng(1)
    for _ in range(300):
        bad = bytearray(good)
        for position in rng.integers(8, len(bad), rng.integers(1, 5)):
            bad[position] = rng.integers(0, 256)
        (tmp_path / "bad.png").write_bytes(bad)
        try:
            image, config, _ = read_png(tmp_path / "bad.png")
            assert image.shape[0] == config.channels
        except RiffError as error:
            assert "\n" not in str(error)


@pytest.mark.filterwarnings("ignore:.*(detail that it lost|does not say what)")
@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_an_animation_is_named_rather_than_read_in_part_without_a_word(tmp_path, name):
    first, second = (PIL.Image.fromarray(random_pixels(64)) for _ in range(2))
    second.putpixel((3, 3), (0, 9, 200))
    first.save(tmp_path / name, save_all=True, append_images=[second])
    with pytest.warns(UserWarning, match="holds 2 images; the first one is read"):
        read_png(tmp_path / name)
