"""Sound files: exact round trips, honest refusals, levels against their standards."""

import json
import math
import os
import struct
import warnings

import numpy
import pytest
import soundfile
import torch
from torch.testing import assert_close

from riff.audio.formats import sniff_container
from riff.audio.io import audio_seconds, load_audio, read_metadata, resample, save_audio
from riff.audio.loudness import loudness, normalize_loudness, peak_normalize
from riff.utils import files
from riff.utils.errors import RiffError, SystemProblem

RATE = 8000
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
# What a lossy coder may change of a sine wave.
TOLERANCE = {".wav": 1e-4, ".flac": 1e-4, ".ogg": 0.05, ".mp3": 0.08}


def sine(frequency, *, rate=RATE, seconds=1.0, level=0.5):
    time = torch.arange(round(rate * seconds), dtype=torch.float64) / rate
    return (level * torch.sin(2 * math.pi * frequency * time)).float()


def stereo(**options):
    return torch.stack([sine(440, **options), 0.5 * sine(997, **options)])


def names(folder):
    return sorted(os.listdir(folder))


# Round trips


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_keeps_length_rate_channels_and_sound(tmp_path, suffix, channels):
    waveform = stereo()[:channels, :7777]
    path = save_audio(tmp_path / f"a{suffix}", waveform, RATE)
    back, rate = load_audio(path)
    assert path == tmp_path / f"a{suffix}"
    assert (back.dtype, rate) == (torch.float32, RATE)
    assert_close(back, waveform, atol=TOLERANCE[suffix], rtol=0)
    assert names(tmp_path) == [f"a{suffix}"]


@pytest.mark.parametrize(
    ("suffix", "subtype", "step"),
    [
        (".wav", None, 2**-15),
        (".wav", "PCM_24", 2**-23),
        (".flac", None, 2**-15),
        (".flac", "PCM_24", 2**-23),
    ],
)
def test_pcm_is_rounded_to_the_nearest_step(tmp_path, suffix, subtype, step):
    waveform = (torch.rand(1, 5000, generator=torch.Generator().manual_seed(0)) * 2 - 1) * 0.99
    save_audio(tmp_path / f"a{suffix}", waveform, RATE, subtype=subtype)
    error = load_audio(tmp_path / f"a{suffix}")[0].double() - waveform.double()
    assert error.abs().max() <= step / 2 * 1.01 + 2**-25
    assert error.mean().abs() < step / 50


def test_float_wav_is_exact_and_keeps_peaks_above_one(tmp_path):
    waveform = 1.7 * stereo(level=0.9)
    save_audio(tmp_path / "a.wav", waveform, RATE, subtype="FLOAT")
    samples, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert_close(torch.from_numpy(samples.T.copy()), waveform, atol=0, rtol=0)
    with pytest.warns(UserWarning, match="peaks at 1.53"):
        back, _ = load_audio(tmp_path / "a.wav")
    assert_close(back, waveform / waveform.abs().max())


def test_full_scale_does_not_wrap_around(tmp_path):
    save_audio(tmp_path / "a.wav", torch.tensor([[1.0, -1.0, 0.0]]), RATE)
    assert_close(load_audio(tmp_path / "a.wav")[0], torch.tensor([[32767 / 32768, -1.0, 0.0]]), atol=0, rtol=0)


def test_a_plain_row_of_samples_is_mono(tmp_path):
    save_audio(tmp_path / "a.wav", sine(440), RATE)
    assert load_audio(tmp_path / "a.wav")[0].shape == (1, RATE)


@pytest.mark.parametrize("options", [{}, {"subtype": "FLOAT"}])
def test_the_same_sound_gives_the_same_wav_at_any_time(tmp_path, options):
    for name in ("a.wav", "b.wav"):
        save_audio(tmp_path / name, stereo(), RATE, metadata={"title": "x"}, **options)
    first = (tmp_path / "a.wav").read_bytes()
    assert first == (tmp_path / "b.wav").read_bytes()
    position = first.find(b"PEAK")
    assert position < 0 or first[position + 12 : position + 16] == bytes(4)


def test_seventy_seconds_of_ogg_are_written_and_read(tmp_path):
    waveform = sine(100, seconds=70)[None]
    save_audio(tmp_path / "a.ogg", waveform, RATE)
    back, _ = load_audio(tmp_path / "a.ogg")
    assert back.shape == waveform.shape
    assert_close(back[:, -RATE:], waveform[:, -RATE:], atol=0.05, rtol=0)


def test_the_input_is_not_changed(tmp_path):
    waveform = stereo() * 1.0005
    copy = waveform.clone()
    save_audio(tmp_path / "a.wav", waveform, RATE)
    assert torch.equal(waveform, copy)


def test_another_memory_layout_or_type_is_the_same_sound(tmp_path):
    waveform = stereo()
    save_audio(tmp_path / "a.wav", waveform, RATE)
    save_audio(tmp_path / "b.wav", waveform.T.contiguous().T.double().requires_grad_(), RATE)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


# Metadata

TEXTS = {
    "title": "Ibiza at 3 a.m. ♪ 古琴",
    "artist": "riff",
    "album": "é",
    "date": "2026",
    "genre": "lo-fi",
    "comment": json.dumps({"prompt": "古琴 solo", "seed": 7, "negative_prompt": "x" * 30_000}),
    "software": "riff 0.1.0",
    "copyright": "CC0",
    "tracknumber": "3",
}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_text_survives_in_every_format(tmp_path, suffix):
    save_audio(tmp_path / f"a{suffix}", stereo(), RATE, metadata=TEXTS)
    assert read_metadata(tmp_path / f"a{suffix}") == TEXTS
    assert_close(load_audio(tmp_path / f"a{suffix}")[0], stereo(), atol=TOLERANCE[suffix], rtol=0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_short_texts_are_read_by_other_software(tmp_path, suffix):
    save_audio(tmp_path / f"a{suffix}", stereo(), RATE, metadata={"title": "A ♪", "comment": "{}"})
    with soundfile.SoundFile(tmp_path / f"a{suffix}") as file:
        assert (file.title, file.comment) == ("A ♪", "{}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_metadata_is_none(tmp_path, suffix):
    save_audio(tmp_path / f"a{suffix}", stereo(), RATE)
    assert read_metadata(tmp_path / f"a{suffix}").keys() <= {"software"}


def test_nul_and_half_characters_cannot_cut_a_text(tmp_path):
    save_audio(tmp_path / "a.wav", stereo(), RATE, metadata={"title": "a\0b\ud800c", "comment": ""})
    assert read_metadata(tmp_path / "a.wav") == {"title": "ab?c"}


@pytest.mark.parametrize("metadata", [{"prompt": "x"}, {"title": 3}, {"comment": "x" * 1_000_001}])
def test_metadata_that_fits_nowhere_is_refused(tmp_path, metadata):
    with pytest.raises(RiffError, match="metadata"):
        save_audio(tmp_path / "a.wav", stereo(), RATE, metadata=metadata)
    assert names(tmp_path) == []


def test_texts_of_a_damaged_length_are_read_as_far_as_they_go(tmp_path):
    save_audio(tmp_path / "a.wav", stereo(), RATE, metadata={"title": "hello"})
    content = bytearray((tmp_path / "a.wav").read_bytes())
    position = content.index(b"INAM") + 4
    content[position : position + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(content)
    assert read_metadata(tmp_path / "a.wav") == {"title": "hello"}


# Saving what cannot be saved


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_samples_are_refused_before_any_encoder(tmp_path, monkeypatch, suffix, value):
    monkeypatch.setattr(soundfile, "SoundFile", lambda *a, **k: pytest.fail("the encoder was opened"))
    waveform = stereo()
    waveform[1, 77] = value
    with pytest.raises(RiffError, match="NaN or infinite"):
        save_audio(tmp_path / f"a{suffix}", waveform, RATE)
    assert names(tmp_path) == []


def test_clipping_is_announced_with_the_peak(tmp_path):
    with pytest.warns(UserWarning, match=r"peaks at 1\.5"):
        save_audio(tmp_path / "a.wav", torch.tensor([[1.5, -0.5, 0.25]]), RATE)
    assert_close(load_audio(tmp_path / "a.wav")[0], torch.tensor([[1.0, -0.5, 0.25]]), atol=1e-4, rtol=0)


def test_a_rounding_error_above_one_is_not_worth_a_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_audio(tmp_path / "a.wav", torch.tensor([[1.0005, -1.0]]), RATE)


@pytest.mark.parametrize("name", ["a", "a.aiff", "a.m4a", "a.wav.txt"])
def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path, name):
    with pytest.raises(RiffError, match=r"suffix .*\.wav, \.flac, \.ogg, \.mp3"):
        save_audio(tmp_path / name, stereo(), RATE)


def test_a_suffix_in_capitals_works(tmp_path):
    save_audio(tmp_path / "A.WAV", stereo(), RATE)
    assert load_audio(tmp_path / "A.WAV")[0].shape == (2, RATE)


@pytest.mark.parametrize(("suffix", "subtype"), [(".wav", "IMA_ADPCM"), (".flac", "FLOAT"), (".ogg", "PCM_16")])
def test_a_subtype_that_a_format_has_not_got_is_refused(tmp_path, suffix, subtype):
    with pytest.raises(RiffError, match=f"subtype is '{subtype}'; a {suffix} file can be"):
        save_audio(tmp_path / f"a{suffix}", stereo(), RATE, subtype=subtype)


@pytest.mark.parametrize("shape", [(0,), (1, 0), (3, 100), (44100, 2), (1, 1, 100), ()])
def test_a_wrong_shape_is_refused(tmp_path, shape):
    with pytest.raises(RiffError, match="the sound has shape"):
        save_audio(tmp_path / "a.wav", torch.zeros(shape), RATE)


@pytest.mark.parametrize("rate", [0, -1, 999, 10**9, 44100.5, True])
def test_an_impossible_rate_is_refused(tmp_path, rate):
    with pytest.raises(RiffError, match="sample rate is"):
        save_audio(tmp_path / "a.wav", stereo(), rate)


def test_a_rate_that_mp3_has_not_got_is_refused_in_words(tmp_path):
    with pytest.raises(RiffError, match=r"MP3 cannot hold 2 channel\(s\) at 96000 Hz; use 44100") as caught:
        save_audio(tmp_path / "a.mp3", stereo(), 96000)
    assert "BytesIO" not in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, suffix):
    save_audio(tmp_path / f"a{suffix}", stereo(), RATE)
    old = (tmp_path / f"a{suffix}").read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.Path, "write_bytes", full)
    with pytest.raises(SystemProblem, match=r"full \([\d,]+ bytes needed"):
        save_audio(tmp_path / f"a{suffix}", 0.1 * stereo(), RATE)
    assert (tmp_path / f"a{suffix}").read_bytes() == old
    assert names(tmp_path) == [f"a{suffix}"]


def test_an_existing_sound_is_kept_without_force(tmp_path):
    save_audio(tmp_path / "a.wav", stereo(), RATE)
    with pytest.raises(RiffError, match="--force"):
        save_audio(tmp_path / "a.wav", stereo()[:, :9], RATE, force=False)
    assert load_audio(tmp_path / "a.wav")[0].shape == (2, RATE)


# Reading parts, rates and channels


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("start", [0.0, 0.1, 2.5, 19.7])
def test_a_part_equals_that_part_of_the_whole(tmp_path, suffix, start):
    # A quiet sine: MP3 frames then depend on many frames before them.
    save_audio(tmp_path / f"a{suffix}", stereo(seconds=20, level=0.01, rate=16000), 16000)
    whole, rate = load_audio(tmp_path / f"a{suffix}")
    part, _ = load_audio(tmp_path / f"a{suffix}", start=start, duration=0.25)
    first = round(start * rate)
    assert part.shape == (2, rate // 4)
    assert_close(part, whole[:, first : first + rate // 4], atol=1e-6, rtol=0)


def test_only_the_part_is_decoded(tmp_path, monkeypatch):
    save_audio(tmp_path / "a.wav", sine(440, seconds=30), RATE)
    counts = []
    read = soundfile.SoundFile.read

    def counting(self, frames=-1, *arguments, **keywords):
        counts.append(frames)
        return read(self, frames, *arguments, **keywords)

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    load_audio(tmp_path / "a.wav", start=20, duration=1.5)
    assert sum(counts) == 12000


def test_a_duration_beyond_the_end_reads_to_the_end(tmp_path):
    save_audio(tmp_path / "a.wav", sine(440), RATE)
    assert load_audio(tmp_path / "a.wav", start=0.75, duration=9)[0].shape == (1, RATE // 4)


def test_a_start_beyond_the_end_is_refused_with_the_length(tmp_path):
    save_audio(tmp_path / "a.wav", sine(440), RATE)
    with pytest.raises(RiffError, match=r"start 1 s is past its end, 1 s"):
        load_audio(tmp_path / "a.wav", start=1.0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"start": -1},
        {"start": math.nan},
        {"duration": 0},
        {"duration": math.inf},
        {"channels": 3},
        {"sample_rate": 0},
        {"sample_rate": 22050.5},
    ],
)
def test_arguments_out_of_range_are_named(tmp_path, arguments):
    save_audio(tmp_path / "a.wav", sine(440), RATE)
    with pytest.raises(RiffError, match=next(iter(arguments)).replace("_", ".") + " is"):
        load_audio(tmp_path / "a.wav", **arguments)


def test_a_file_longer_than_the_limit_is_refused_unless_a_part_is_asked_for(tmp_path):
    save_audio(tmp_path / "a.flac", torch.zeros(1, 20 * RATE), RATE)
    with pytest.raises(RiffError, match="20 s were asked for, and at most 10 s are read at once; use start"):
        load_audio(tmp_path / "a.flac", max_seconds=10)
    assert load_audio(tmp_path / "a.flac", start=15, max_seconds=10)[0].shape == (1, 5 * RATE)


def test_three_hours_of_silence_in_a_small_file_are_refused_by_default(tmp_path):
    path = tmp_path / "bomb.flac"
    with soundfile.SoundFile(path, "w", samplerate=1000, channels=1) as file:
        for _ in range(11):
            file.write(numpy.zeros(1_000_000, dtype=numpy.int16))
    assert path.stat().st_size < 200_000
    with pytest.raises(RiffError, match="11000 s were asked for, and at most 7200 s"):
        load_audio(path)


def test_a_flac_that_does_not_know_its_length_is_read_to_its_end(tmp_path):
    save_audio(tmp_path / "a.flac", stereo(seconds=3), RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    # The number of samples in the first block: 36 bits, 0 as written into a pipe.
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(content)
    whole, _ = load_audio(tmp_path / "a.flac")
    assert_close(whole, stereo(seconds=3), atol=1e-4, rtol=0)
    assert audio_seconds(tmp_path / "a.flac") == 3.0
    assert torch.equal(load_audio(tmp_path / "a.flac", start=1, duration=1)[0], whole[:, RATE : 2 * RATE])
    with pytest.raises(RiffError, match="lasts more than the 2 s"):
        load_audio(tmp_path / "a.flac", max_seconds=2)
    with pytest.raises(RiffError, match="start 4 s is past its end"):
        load_audio(tmp_path / "a.flac", start=4)


def test_channels_are_averaged_or_doubled(tmp_path):
    waveform = torch.stack([torch.full((100,), 0.5), torch.full((100,), -0.25)])
    save_audio(tmp_path / "a.wav", waveform, RATE)
    mono, _ = load_audio(tmp_path / "a.wav", channels=1)
    assert_close(mono, torch.full((1, 100), 0.125))
    save_audio(tmp_path / "b.wav", mono, RATE)
    assert_close(load_audio(tmp_path / "b.wav", channels=2)[0], torch.full((2, 100), 0.125))


def test_six_channels_become_mono_but_no_guessed_stereo(tmp_path):
    soundfile.write(tmp_path / "a.wav", numpy.full((100, 6), 0.5), RATE)
    assert_close(load_audio(tmp_path / "a.wav", channels=1)[0], torch.full((1, 100), 0.5))
    assert load_audio(tmp_path / "a.wav")[0].shape == (6, 100)
    with pytest.raises(RiffError, match="has 6 channels"):
        load_audio(tmp_path / "a.wav", channels=2)


def test_a_sample_rate_is_resampled_to(tmp_path):
    save_audio(tmp_path / "a.wav", sine(440, rate=16000), 16000)
    back, rate = load_audio(tmp_path / "a.wav", sample_rate=RATE)
    assert (back.shape, rate) == ((1, RATE), RATE)
    assert_close(back[0, 200:-200], sine(440)[200:-200], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [
        ("wav", "PCM_U8"),
        ("wav", "PCM_16"),
        ("wav", "PCM_24"),
        ("wav", "PCM_32"),
        ("wav", "FLOAT"),
        ("wav", "DOUBLE"),
        ("aiff", "PCM_16"),
        ("aiff", "PCM_24"),
        ("aiff", "FLOAT"),
        ("flac", "PCM_24"),
        ("ogg", "OPUS"),
    ],
)
def test_every_allowed_kind_is_read(tmp_path, suffix, subtype):
    soundfile.write(tmp_path / f"a.{suffix}", sine(440).numpy(), RATE, subtype=subtype)
    back, _ = load_audio(tmp_path / f"a.{suffix}")
    assert_close(back[0], sine(440), atol={"PCM_U8": 0.01, "OPUS": 0.1}.get(subtype, 1e-4), rtol=0)


def test_an_extensible_wav_header_is_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(440).numpy(), RATE, format="WAVEX", subtype="PCM_24")
    assert load_audio(tmp_path / "a.wav")[0].shape == (1, RATE)


def test_content_and_not_suffix_decides(tmp_path):
    save_audio(tmp_path / "a.flac", sine(440), RATE)
    os.rename(tmp_path / "a.flac", tmp_path / "a.mp3")
    assert sniff_container(tmp_path / "a.mp3") == "FLAC"
    assert load_audio(tmp_path / "a.mp3")[0].shape == (1, RATE)


@pytest.mark.parametrize("name", ["🎵 größe.wav", "-o.wav", "a\nb.wav", "x" * 251 + ".wav"])
def test_odd_names_work(tmp_path, name):
    save_audio(tmp_path / name, sine(440), RATE)
    assert load_audio(tmp_path / name)[0].shape == (1, RATE)


# Bad input


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610", "ULAW", "ALAW"])
def test_codecs_with_holes_in_libsndfile_are_read_by_ffmpeg(tmp_path, monkeypatch, subtype):
    soundfile.write(tmp_path / "a.wav", sine(440).numpy(), RATE, subtype=subtype)
    monkeypatch.setattr(soundfile, "_snd", None)
    back, rate = load_audio(tmp_path / "a.wav")
    assert (rate, len(back)) == (RATE, 1)
    assert_close(back[0, 50:RATE], sine(440)[50:], atol=0.25, rtol=0)  # adaptive codecs begin with a step of nothing


@pytest.mark.parametrize("subtype", ["G721_32", "NMS_ADPCM_16"])
def test_codecs_that_nobody_reads_are_refused_before_any_decoder(tmp_path, monkeypatch, subtype):
    soundfile.write(tmp_path / "a.wav", sine(440).numpy(), RATE, subtype=subtype)
    monkeypatch.setattr(soundfile, "_snd", None)
    with pytest.raises(RiffError, match=r"a\.wav is a WAV file with .* inside; convert it to PCM or FLAC"):
        load_audio(tmp_path / "a.wav")


@pytest.mark.parametrize(("subtype", "tolerance"), [("IMA_ADPCM", 0.1), ("ULAW", 0.02)])
def test_compressed_aiff_is_read_by_ffmpeg(tmp_path, monkeypatch, subtype, tolerance):
    soundfile.write(tmp_path / "a.aiff", sine(440).numpy(), RATE, format="AIFF", subtype=subtype)
    monkeypatch.setattr(soundfile, "_snd", None)
    assert_close(load_audio(tmp_path / "a.aiff")[0][0, 50:RATE], sine(440)[50:], atol=tolerance, rtol=0)


def test_aiff_with_a_codec_that_nobody_reads_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.aiff", sine(440).numpy(), RATE, format="AIFF", subtype="GSM610")
    with pytest.raises(RiffError, match=r"AIFF file with .* inside"):
        load_audio(tmp_path / "a.aiff")


@pytest.mark.parametrize("form", ["MAT5", "VOC", "PAF", "SVX", "XI", "NIST"])
def test_other_containers_are_refused(tmp_path, form):
    subtype = "DPCM_16" if form == "XI" else "PCM_16"
    soundfile.write(tmp_path / "a.wav", sine(440).numpy(), 44100, format=form, subtype=subtype)
    with pytest.raises(RiffError, match="not a readable sound file; use WAV, FLAC, OGG, MP3 or AIFF"):
        load_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("form", ["AU", "CAF", "W64", "RF64"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_long_and_old_containers_are_read_to_the_bit(tmp_path, form, subtype):
    soundfile.write(tmp_path / "a.wav", stereo().T.numpy(), RATE, format=form, subtype=subtype)
    expected, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert torch.equal(load_audio(tmp_path / "a.wav")[0], torch.from_numpy(expected.T.copy()))


def wav_bytes(*, rate=RATE, channels=1, bits=16, frames=100, data_size=None, code=1):
    frame = channels * bits // 8
    body = bytes(min(frames * frame, 1 << 20))
    size = len(body) if data_size is None else data_size
    fmt = struct.pack("<HHIIHH", code, channels, rate, rate * frame & 0xFFFFFFFF, frame & 0xFFFF, bits)
    chunks = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", size) + body
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


BAD = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "one byte": (b"R", "not a readable sound file"),
    "text": (b"This is my song, honestly.\n" * 50, "not a readable sound file"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a readable sound file"),
    "html": (b"<!DOCTYPE html><html>", "not a readable sound file"),
    "header only": (wav_bytes(frames=0), "no sound"),
    "no format": (b"RIFF\x04\0\0\0WAVE", "damaged WAV"),
    "half a header": (wav_bytes()[:30], "damaged WAV"),
    "rate 0": (wav_bytes(rate=0), "a.wav"),
    "rate 1": (wav_bytes(rate=1), "claims 1 samples per second"),
    "rate 4e9": (wav_bytes(rate=4_000_000_000), "a.wav"),
    "no channels": (wav_bytes(channels=0), "a.wav"),
    "65535 channels": (wav_bytes(channels=65535, bits=8), "a.wav"),
    "3 bits": (wav_bytes(bits=3), "3-bit"),
    "odd frames": (wav_bytes()[:32] + b"\x07\0" + wav_bytes()[34:], "odd 16-bit samples"),
    "forbidden bit rate": (b"\xff\xfb\xf0\x00" + bytes(100), "not a readable sound file"),
    "unknown codec": (wav_bytes(code=0x1234), "codec 0x1234"),
    "big-endian": (b"RIFX" + wav_bytes()[4:], "not a readable sound file"),
    "only a tag": (b"ID3\x03\0\0\0\0\0\x0a" + bytes(10), "not a readable sound file"),
    "tag beyond the end": (b"ID3\x03\0\0\x7f\x7f\x7f\x7f" + bytes(10), "not a readable sound file"),
    "flac head": (b"fLaC" + bytes(100), "not a readable FLAC file"),
    "mp3 head": (b"\xff\xfb\x90\x00" + bytes(10), "a.wav"),
    "ogg head": (b"OggS" + bytes(100), "Ogg file without Vorbis"),
    "speex": (b"OggS" + bytes(22) + b"\x01\x50Speex   " + bytes(99), "Ogg file without Vorbis"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_sound_is_named_in_one_line(tmp_path, name):
    content, message = BAD[name]
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(RiffError, match=message) as caught:
        load_audio(tmp_path / "a.wav")
    assert "\n" not in str(caught.value)
    assert "a.wav" in str(caught.value)
    assert "SoundFile" not in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(RiffError, match="does not exist"):
        load_audio(tmp_path / "a.wav")
    with pytest.raises(RiffError, match="is a folder"):
        load_audio(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(RiffError, match="pipe or device"):
        load_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_float_file_with_non_finite_samples_is_refused(tmp_path, value):
    samples = sine(440).numpy().copy()
    samples[5] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(RiffError, match=r"a\.wav holds NaN or infinite samples"):
        load_audio(tmp_path / "a.wav")


def test_an_absurdly_loud_float_file_is_scaled(tmp_path):
    soundfile.write(tmp_path / "a.wav", 1e30 * sine(440).numpy(), RATE, subtype="FLOAT")
    with pytest.warns(UserWarning, match=r"peaks at 5e\+29"):
        back, _ = load_audio(tmp_path / "a.wav")
    assert_close(back[0], sine(440, level=1.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("data_size", [0xFFFFFFFF, 1000])
def test_a_wav_with_a_wrong_length_gives_what_is_there(tmp_path, data_size):
    (tmp_path / "a.wav").write_bytes(wav_bytes(frames=100, data_size=data_size))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert load_audio(tmp_path / "a.wav")[0].shape == (1, 100)
    # The largest size is what a program writes into a pipe; any other promises sound that is not there.
    assert len(caught) == (data_size == 1000)


def test_a_flac_cut_in_the_middle_is_read_as_far_as_it_goes(tmp_path):
    noise = torch.rand(1, 80_000, generator=torch.Generator().manual_seed(0)) - 0.5
    save_audio(tmp_path / "a.flac", noise, RATE)
    content = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match=r"a\.flac is damaged: .* of 80000 samples could be read"):
        back, _ = load_audio(tmp_path / "a.flac")
    assert 36_000 < back.shape[1] <= 40_000
    assert_close(back, noise[:, : back.shape[1]], atol=1e-4, rtol=0)


def test_random_damage_gives_a_sound_or_a_riff_error(tmp_path):
    rng = numpy.random.default_rng(0)
    for suffix in (".wav", ".flac", ".ogg"):
        save_audio(tmp_path / f"good{suffix}", stereo(seconds=0.2), RATE, metadata={"title": "x"})
        good = (tmp_path / f"good{suffix}").read_bytes()
        for _ in range(60):
            bad = bytearray(good)
            for position in rng.integers(0, len(bad), rng.integers(1, 6)):
                bad[position] = rng.integers(0, 256)
            (tmp_path / "bad").write_bytes(bad)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    waveform, _ = load_audio(tmp_path / "bad")
                    read_metadata(tmp_path / "bad")
                    assert bool((waveform.abs() <= 1).all())
                except RiffError as error:
                    assert "\n" not in str(error)


# Resampling


@pytest.mark.parametrize(("old", "new"), [(44100, 16000), (16000, 44100), (48000, 44100), (8000, 7999)])
def test_resampling_moves_a_sine_to_the_new_clock(old, new):
    output = resample(sine(1000, rate=old), old, new)
    expected = sine(1000, rate=new)
    assert output.shape == expected.shape
    assert_close(output[500:-500], expected[500:-500], atol=1e-4, rtol=0)


@pytest.mark.parametrize("samples", [1, 2, 999, 44101])
def test_resampled_length_is_the_ceiling(samples):
    assert resample(torch.zeros(2, 3, samples), 44100, 16000).shape == (
        2,
        3,
        math.ceil(samples * 16000 / 44100),
    )


def test_what_the_new_rate_cannot_hold_is_removed():
    output = resample(sine(10000, rate=44100), 44100, 16000)
    assert output[500:-500].abs().max() < 1e-4


def test_equal_rates_change_nothing():
    waveform = sine(440)
    assert resample(waveform, RATE, RATE) is waveform


# Levels


def test_peak_is_reached_exactly_per_clip_and_silence_stays():
    waveforms = torch.stack([stereo(), 0.01 * stereo(), torch.zeros(2, RATE)])
    output = peak_normalize(waveforms, peak=0.89)
    assert_close(output.abs().amax(dim=(-2, -1)), torch.tensor([0.89, 0.89, 0.0]))
    assert_close(output[0], output[1])
    assert torch.equal(output[2], torch.zeros(2, RATE))
    assert_close(peak_normalize(sine(440)).abs().max(), torch.tensor(0.89))


@pytest.mark.parametrize("rate", [22050, 44100, 48000, 96000])
def test_loudness_of_the_standards_reference_tone(rate):
    # BS.1770: a 0 dB sine at 997 Hz in one front channel reads -3.01 LUFS.
    tone = sine(997, rate=rate, seconds=3, level=1.0)
    assert loudness(tone, rate) == pytest.approx(-3.01, abs=0.03)
    assert loudness(torch.stack([tone, 0 * tone]), rate) == pytest.approx(-3.01, abs=0.03)
    assert loudness(torch.stack([tone, tone]), rate) == pytest.approx(0.0, abs=0.03)
    assert loudness(0.1 * tone, rate) == pytest.approx(-23.01, abs=0.03)


def test_quiet_passages_are_gated_out():
    loud = sine(997, rate=48000, seconds=10, level=0.5)
    quiet = torch.cat([loud, 0.001 * loud])
    assert loudness(quiet, 48000) == pytest.approx(loudness(loud, 48000), abs=0.1)


def test_silence_has_no_loudness_and_a_short_sound_has():
    assert loudness(torch.zeros(2, 48000), 48000) == -math.inf
    assert loudness(sine(997, rate=48000, level=1e-4), 48000) == -math.inf
    assert loudness(sine(997, rate=48000, seconds=0.2, level=1.0), 48000) == pytest.approx(-3.01, abs=0.2)
    assert math.isfinite(loudness(torch.ones(1), 48000))


@pytest.mark.parametrize("rate", [44100, 48000])
def test_loudness_agrees_with_pyloudnorm(rate):
    pyloudnorm = pytest.importorskip("pyloudnorm")
    generator = torch.Generator().manual_seed(0)
    swell = torch.linspace(0.01, 0.5, 5 * rate) ** 2
    waveform = (torch.rand(2, 5 * rate, generator=generator) - 0.5) * swell
    expected = pyloudnorm.Meter(rate, filter_class="DeMan").integrated_loudness(waveform.T.numpy())
    assert loudness(waveform, rate) == pytest.approx(expected, abs=0.02)


def test_loudness_is_reached_unless_the_peak_forbids():
    waveform = stereo(rate=48000, level=0.1)
    assert loudness(normalize_loudness(waveform, 48000, lufs=-20.0), 48000) == pytest.approx(-20.0, abs=0.01)
    click = torch.zeros(1, 48000)
    click[0, 100] = 0.5
    assert_close(normalize_loudness(click, 48000, lufs=-10.0, peak=0.89).max(), torch.tensor(0.89))
    assert torch.equal(normalize_loudness(torch.zeros(1, 48000), 48000), torch.zeros(1, 48000))


def test_levels_out_of_range_are_refused():
    for peak in (0.0, 1.5, math.nan):
        with pytest.raises(RiffError, match="peak is"):
            peak_normalize(sine(440), peak=peak)
        with pytest.raises(RiffError, match="peak is"):
            normalize_loudness(sine(440), RATE, peak=peak)
    with pytest.raises(RiffError, match="lufs is"):
        normalize_loudness(sine(440), RATE, lufs=math.nan)


def test_a_rate_at_which_libsndfile_dies_is_refused_for_ogg(tmp_path):
    with pytest.raises(RiffError, match="at most 200000 Hz, not 384000"):
        save_audio(tmp_path / "a.ogg", torch.zeros(1, 4000), 384000)
    assert not list(tmp_path.iterdir())
