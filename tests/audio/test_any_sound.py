"""Any sound file that a musician has: read whole, or a line says what is missing."""

import contextlib
import fractions
import io
import os
import struct
import warnings

import av
import numpy as np
import pytest
import soundfile
import torch
from torch.testing import assert_close

from riff.audio.channels import mix, to_mono
from riff.audio.formats import SUFFIXES
from riff.audio.io import audio_seconds, check_samples, load_audio, read_metadata, save_audio
from riff.audio.reader import open_sound
from riff.utils.errors import RiffError

RATE = 44100
TONE = (0.5 * np.sin(2 * np.pi * 330 * np.arange(3 * RATE) / RATE)).astype(np.float32)
STEREO = np.stack([TONE, 0.3 * TONE])


def coded(form, codec, *, layout="stereo", rate=RATE, sound=STEREO, tags=None, options=None):
    """A sound (C, T) as FFmpeg codes it, in memory."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form, options=options or {}) as container:
        container.metadata.update(tags or {})
        stream = container.add_stream(codec, rate=rate)
        stream.layout = layout
        if codec == "wmav2":
            stream.bit_rate = 128_000
        if codec in ("tta", "wavpack"):
            stream.format = "s16" if codec == "tta" else "s16p"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, fractions.Fraction(1, RATE)
        for each in (frame, None):
            container.mux(stream.encode(each))
    return buffer.getvalue()


def unseekable(content, form, codec):
    """The same written into a pipe, so that lengths in the header stay unknown."""

    class Pipe(io.RawIOBase):
        def __init__(self):
            self.content = bytearray()

        def writable(self):
            return True

        def write(self, data):
            self.content += bytes(data)
            return len(data)

    pipe = Pipe()
    with av.open(io.BytesIO(content)) as source, av.open(pipe, "w", format=form) as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return bytes(pipe.content)


KINDS = {
    "aac.m4a": ("ipod", "aac"),
    "alac.m4a": ("ipod", "alac"),
    "flac.mp4": ("mp4", "flac"),
    "a.aac": ("adts", "aac"),
    "a.opus": ("ogg", "libopus"),
    "a.wma": ("asf", "wmav2"),
    "opus.webm": ("webm", "libopus"),
    "flac.mka": ("matroska", "flac"),
    "a.oga": ("ogg", "flac"),
    "a.caf": ("caf", "pcm_s24le"),
    "alac.caf": ("caf", "alac"),
    "a.w64": ("w64", "pcm_s24le"),
    "a.rf64": ("wav", "pcm_s16le"),
    "law.aifc": ("aiff", "pcm_mulaw"),
    "sowt.aifc": ("aiff", "pcm_s16le"),
    "a.au": ("au", "pcm_s16be"),
    "a.tta": ("tta", "tta"),
    "a.wv": ("wv", "wavpack"),
}
LOSSY = {"aac.m4a", "a.aac", "a.opus", "a.wma", "opus.webm", "law.aifc"}


def kind(name):
    form, codec = KINDS[name]
    rate = 48000 if "opus" in name else RATE
    return coded(form, codec, rate=rate, options={"rf64": "always"} if name.endswith("rf64") else None)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_read_whole(tmp_path, name, recwarn):
    (tmp_path / name).write_bytes(kind(name))
    sound, rate = load_audio(tmp_path / name, sample_rate=RATE)
    assert (len(sound), rate) == (2, RATE)
    # A lossy coder adds up to a block before and after.
    assert abs(sound.shape[1] - len(TONE)) <= (4200 if name in LOSSY else 0)
    assert audio_seconds(tmp_path / name) == pytest.approx(3.0, abs=0.1)
    if name in LOSSY:
        spectrum = torch.fft.rfft(sound[0, RATE : 2 * RATE]).abs()
        assert int(spectrum.argmax()) == 330
        assert float(sound[0].square().mean()) == pytest.approx(0.125, rel=0.05)
    else:
        assert_close(sound.numpy(), STEREO, atol=4e-5, rtol=0)
    assert not [str(w.message) for w in recwarn if "damaged" in str(w.message)]


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"a.rf64"}))
def test_a_part_equals_that_part_of_any_whole(tmp_path, name):
    (tmp_path / name).write_bytes(kind(name))
    whole, rate = load_audio(tmp_path / name)
    part, _ = load_audio(tmp_path / name, start=1.25, duration=0.5)
    first = round(1.25 * rate)
    assert torch.equal(part, whole[:, first : first + round(0.5 * rate)])


CUTTABLE = sorted(set(KINDS) - {"aac.m4a", "alac.m4a", "flac.mp4", "alac.caf"})


@pytest.mark.parametrize("name", CUTTABLE)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_half_a_download_of_any_kind_is_read_with_a_warning(tmp_path, name, share):
    content = kind(name)
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.warns(UserWarning, match="is damaged"):
        sound, rate = load_audio(tmp_path / name)
    assert 0.2 * 3 * rate < sound.shape[1] < 3.1 * share * rate + 8192


@pytest.mark.parametrize("name", ["aac.m4a", "alac.m4a", "flac.mp4", "alac.caf"])
def test_a_file_that_lost_its_index_is_refused_in_one_line(tmp_path, name):
    content = kind(name)
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(RiffError, match=r"not a readable (M4A|CAF) file"):
        load_audio(tmp_path / name)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".aiff"])
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_plain_files_cut_short_warn(tmp_path, suffix, share):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, (3 * RATE, 2)), RATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.warns(UserWarning, match="is damaged"):
        sound, _ = load_audio(path)
    assert 0 < sound.shape[1] < 3 * RATE


def joined(*parts):
    return b"".join(parts)


def test_a_chained_ogg_is_read_to_its_last_link(tmp_path):
    for number, rate in enumerate((RATE, RATE // 2)):
        soundfile.write(tmp_path / f"{number}.ogg", STEREO.T[:: 1 + number], rate)
    links = [(tmp_path / f"{number}.ogg").read_bytes() for number in (0, 1)]
    (tmp_path / "same.ogg").write_bytes(joined(links[0], links[0], links[0]))
    sound, rate = load_audio(tmp_path / "same.ogg")
    assert (sound.shape, rate) == ((2, 9 * RATE), RATE)
    assert audio_seconds(tmp_path / "same.ogg") == 9.0
    (tmp_path / "other.ogg").write_bytes(joined(*links))
    sound, _ = load_audio(tmp_path / "other.ogg")
    assert sound.shape == (2, 6 * RATE)
    assert_close(sound[0, 4 * RATE : 5 * RATE].square().mean(), torch.tensor(0.125), rtol=0.02, atol=0)


def test_a_broken_link_of_a_chain_is_named(tmp_path):
    soundfile.write(tmp_path / "a.ogg", STEREO.T, RATE)
    content = (tmp_path / "a.ogg").read_bytes()
    (tmp_path / "b.ogg").write_bytes(content + content[:2000])
    with pytest.warns(UserWarning, match="part 2 of 2 cannot be read"):
        sound, _ = load_audio(tmp_path / "b.ogg")
    assert sound.shape[1] == 3 * RATE


def test_pages_lost_in_the_middle_of_an_ogg_are_named(tmp_path):
    soundfile.write(tmp_path / "a.ogg", np.random.default_rng(0).normal(0, 0.1, (8 * RATE, 2)), RATE)
    pages = [b"OggS" + page for page in (tmp_path / "a.ogg").read_bytes().split(b"OggS")[1:]]
    assert len(pages) > 6
    (tmp_path / "b.ogg").write_bytes(joined(*pages[:4], *pages[5:]))
    with pytest.warns(UserWarning, match="pages are missing at 1 places"):
        load_audio(tmp_path / "b.ogg")


@pytest.fixture(scope="module")
def vbr():
    """An MP3 of 3 s of noise and 6 s of a quiet tone, without the frame that says how long it is."""
    noise = np.random.default_rng(0).normal(0, 0.15, (2, 3 * RATE)).astype(np.float32)
    sound = np.concatenate([noise, 0.05 * STEREO, 0.05 * STEREO], axis=1)
    content = coded("mp3", "libmp3lame", sound=sound, options={"write_xing": "0", "id3v2_version": "0"})
    assert content[0] == 0xFF
    assert b"Xing" not in content[:4096]
    return content


def test_an_mp3_without_a_length_is_read_to_its_end(tmp_path, vbr, recwarn):
    (tmp_path / "a.mp3").write_bytes(vbr)
    sound, _ = load_audio(tmp_path / "a.mp3")
    assert 9 * RATE <= sound.shape[1] <= 9 * RATE + 3 * 1152
    assert audio_seconds(tmp_path / "a.mp3") == pytest.approx(9.0, abs=0.1)
    assert not len(recwarn)


def test_an_mp3_without_a_length_that_is_cut_warns(tmp_path, vbr):
    (tmp_path / "a.mp3").write_bytes(vbr[: len(vbr) // 2 + 57])
    with pytest.warns(UserWarning, match="ends in the middle of a frame"):
        load_audio(tmp_path / "a.mp3")


TAG = b"ID3\x03\0\0\0\0\x02\0" + bytes(256)


@pytest.mark.parametrize("before", [TAG, TAG + TAG, bytes(1000), TAG + bytes(500), b"\xff\xfbjunk" * 20])
@pytest.mark.parametrize("suffix", [".mp3", ".wav", ".flac", ".ogg"])
def test_tags_and_junk_before_the_sound_are_stepped_over(tmp_path, before, suffix):
    if suffix != ".mp3" and before.replace(TAG, b""):
        pytest.skip("junk is only ever found before MPEG frames")
    soundfile.write(tmp_path / f"a{suffix}", STEREO.T, RATE)
    content = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(before + content)
    assert torch.equal(load_audio(tmp_path / f"b{suffix}")[0], load_audio(tmp_path / f"a{suffix}")[0])


@pytest.mark.parametrize("between", [b"", TAG, b"TAG" + bytes(125)])
def test_mp3_files_set_end_to_end_are_read_to_the_last(tmp_path, between, capfd):
    soundfile.write(tmp_path / "a.mp3", STEREO.T, RATE)
    content = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "b.mp3").write_bytes(content + between + content)
    assert load_audio(tmp_path / "b.mp3")[0].shape[1] == 6 * RATE
    assert capfd.readouterr() == ("", "")


def test_decoders_print_nothing(tmp_path, capfd):
    soundfile.write(tmp_path / "a.mp3", STEREO.T, RATE)
    content = bytearray((tmp_path / "a.mp3").read_bytes())
    for place in range(2000, len(content), 701):
        content[place] ^= 0xFF
    (tmp_path / "a.mp3").write_bytes(content)
    (tmp_path / "a.m4a").write_bytes(coded("ipod", "aac")[:-300])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("a.mp3", "a.m4a"):
            with contextlib.suppress(RiffError):
                load_audio(tmp_path / name)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sizes", [(0, 0), (0, 1000), (0xFFFFFFFF, 0xFFFFFFFF), (0, 0xFFFFFFFF)])
def test_a_recorder_that_lost_power_loses_nothing(tmp_path, sizes):
    soundfile.write(tmp_path / "a.wav", STEREO.T, RATE)
    whole = load_audio(tmp_path / "a.wav")[0]
    content = bytearray((tmp_path / "a.wav").read_bytes())
    place = content.index(b"data")
    struct.pack_into("<I", content, 4, sizes[0])
    struct.pack_into("<I", content, place + 4, sizes[1])
    (tmp_path / "a.wav").write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert torch.equal(load_audio(tmp_path / "a.wav")[0], whole)
    assert ["all are read" in str(one.message) for one in caught] == ([True] if sizes[1] == 1000 else [])


def test_flac_from_a_pipe_is_read_to_its_end(tmp_path):
    (tmp_path / "a.flac").write_bytes(unseekable(coded("flac", "flac"), "flac", "flac"))
    assert load_audio(tmp_path / "a.flac")[0].shape == (2, 3 * RATE)


def ambisonic(samples, tail="00002107d3118644c8c1ca000000"):
    count = len(samples)
    pcm = (np.asarray(samples).T * 32767).round().astype("<i2").tobytes()
    fmt = struct.pack("<HHIIHHHHIH", 0xFFFE, count, RATE, RATE * 2 * count, 2 * count, 16, 22, 16, 0, 1)
    fmt += bytes.fromhex(tail)
    body = b"WAVEfmt " + struct.pack("<I", 40) + fmt + b"data" + struct.pack("<I", len(pcm)) + pcm
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_a_sound_field_is_heard_in_all_directions(tmp_path):
    directions = np.random.default_rng(0).normal(0, 0.1, (3, len(TONE)))
    (tmp_path / "a.wav").write_bytes(ambisonic([TONE, *directions]))
    assert load_audio(tmp_path / "a.wav")[0].shape == (4, len(TONE))
    for channels in (1, 2):
        sound, _ = load_audio(tmp_path / "a.wav", channels=channels)
        assert_close(sound.numpy(), np.stack([TONE] * channels), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("place", "left", "right", "mono"),
    [(0, 0.0, None, -13.66), (2, -3.01, -3.01, -10.66), (3, None, None, None), (4, -3.01, None, -16.67)],
)
def test_surround_is_mixed_by_the_standard(tmp_path, place, left, right, mono):
    # BS.775: the centre and the sides 3 dB down in stereo; rows are scaled so that full scale stays full scale.
    sound = np.zeros((6, len(TONE)), np.float32)
    sound[place] = TONE
    (tmp_path / "a.wav").write_bytes(coded("wav", "pcm_f32le", layout="5.1", sound=sound))
    back, _ = load_audio(tmp_path / "a.wav", channels=2)

    def level(row):
        power = float(row.square().mean())
        return None if power < 1e-9 else 10 * np.log10(power / 0.125)

    scale = 20 * np.log10(1 + 2 * 0.5**0.5)
    assert [level(row) for row in back] == [
        None if one is None else pytest.approx(one - scale, abs=0.02) for one in (left, right)
    ]
    single, _ = load_audio(tmp_path / "a.wav", channels=1)
    assert level(single[0]) == (None if mono is None else pytest.approx(mono, abs=0.02))


@pytest.mark.parametrize("codec", [("flac", "flac"), ("ipod", "aac"), ("wav", "pcm_s16le"), ("ogg", "libopus")])
def test_the_centre_channel_is_the_centre_in_every_container(tmp_path, codec):
    sound = np.zeros((6, len(TONE)), np.float32)
    sound[2] = TONE
    (tmp_path / "a").write_bytes(coded(*codec, layout="5.1", sound=sound, rate=48000 if "opus" in codec[1] else RATE))
    single, _ = load_audio(tmp_path / "a", channels=1)
    assert float(10 * (single.square().mean() / 0.125).log10()) == pytest.approx(-10.66, abs=0.1)


def test_channels_that_cancel_are_not_silent(tmp_path):
    save_audio(tmp_path / "a.wav", torch.from_numpy(np.stack([TONE, -TONE])), RATE)
    with pytest.warns(UserWarning, match="out of phase"):
        sound, _ = load_audio(tmp_path / "a.wav", channels=1)
    assert_close(sound[0].numpy(), TONE, atol=1e-4, rtol=0)


def test_only_channels_that_cancel_are_treated_so():
    left, right = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 9999)))
    assert torch.equal(to_mono(torch.stack([left, right])), torch.stack([left, right]).mean(0, keepdim=True))
    assert torch.equal(to_mono(torch.zeros(2, 9)), torch.zeros(1, 9))
    assert torch.equal(to_mono(torch.stack([left, -0.99 * left])), left[None])
    assert torch.equal(mix(torch.stack([0.5 * left, -0.51 * left]), 1), -0.51 * left[None])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.int32])
def test_arrays_of_every_usual_type_are_the_same_sound(dtype):
    scale = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    sound, rate = check_samples((STEREO * scale).astype(dtype), RATE)
    assert (sound.dtype, rate) == (torch.float32, RATE)
    assert_close(sound.numpy(), STEREO, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (STEREO * 1j, RATE, "complex"),
        (STEREO.astype("O"), RATE, "no numeric type"),
        (STEREO.T, RATE, r"shape \(132300, 2\)"),
        (np.zeros((2, 0), np.float32), RATE, "shape"),
        (STEREO > 0, RATE, "bool"),
        ((STEREO * 100).astype(np.int64), RATE, "int64"),
        (np.full(99, np.nan, np.float32), RATE, "NaN or infinite"),
        (STEREO, 44100.5, "sample rate is"),
        (STEREO, "44100", "sample rate is"),
        (STEREO, 10, "sample rate is"),
        (np.zeros((1, 7_300_000), np.float32), 1000, "last 7300 s"),
    ],
)
def test_arrays_that_are_no_sound_are_refused_in_one_line(audio, rate, message):
    with pytest.raises(RiffError, match=message):
        check_samples(audio, rate)


def test_an_array_louder_than_full_scale_is_scaled_as_a_file_is():
    with pytest.warns(UserWarning, match="peaks at 4"):
        sound, _ = check_samples(8.0 * TONE, RATE)
    assert_close(sound[0].numpy(), 2.0 * TONE, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "name", [b"take \xff\xfe.wav", b"a.raw", b"no suffix", b" .wav ", "é̄.WAV".encode(), b"%s{}.mp3"]
)
def test_names_are_what_file_systems_allow(tmp_path, name):
    soundfile.write(tmp_path / "a.wav", STEREO.T, RATE)
    path = os.fsdecode(os.path.join(os.fsencode(tmp_path), name))
    os.rename(tmp_path / "a.wav", path)
    assert load_audio(path)[0].shape == (2, 3 * RATE)
    assert audio_seconds(path) == 3.0
    assert read_metadata(path) == {}


def test_texts_of_other_containers_are_read(tmp_path):
    (tmp_path / "a.m4a").write_bytes(coded("ipod", "aac", tags={"title": "Ibiza ♪", "comment": "{}"}))
    assert read_metadata(tmp_path / "a.m4a") == {"title": "Ibiza ♪", "comment": "{}"}


def test_a_film_without_sound_is_refused(tmp_path):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (tmp_path / "a.mp4").write_bytes(buffer.getvalue())
    with pytest.raises(RiffError, match="holds no sound"):
        load_audio(tmp_path / "a.mp4")


def test_a_header_that_claims_gigabytes_takes_none(tmp_path):
    soundfile.write(tmp_path / "a.flac", STEREO.T, RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff\xff\xff\xff"
    (tmp_path / "a.flac").write_bytes(content)
    with pytest.raises(RiffError, match="at most 7200 s"):
        load_audio(tmp_path / "a.flac")
    with pytest.warns(UserWarning, match="is damaged"):
        sound, _ = load_audio(tmp_path / "a.flac", duration=60)
    assert sound.shape[1] == 3 * RATE


def test_random_damage_gives_a_sound_or_one_line(tmp_path, capfd):
    rng = np.random.default_rng(0)
    for name in ("aac.m4a", "a.wma", "opus.webm", "a.oga", "a.caf", "a.w64", "a.wv", "alac.m4a"):
        good = kind(name)
        for _ in range(12):
            bad = bytearray(good)
            for place in rng.integers(0, len(bad) if rng.random() < 0.5 else 2000, rng.integers(1, 8)):
                bad[place] = rng.integers(0, 256)
            (tmp_path / "bad").write_bytes(bad)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    sound, _ = load_audio(tmp_path / "bad", max_seconds=60)
                    assert bool((sound.abs() <= 1).all())
                except RiffError as error:
                    assert "\n" not in str(error)
    assert capfd.readouterr() == ("", "")


def test_reading_in_blocks_equals_reading_at_once(tmp_path):
    for name in ("aac.m4a", "a.oga"):
        (tmp_path / name).write_bytes(kind(name))
        with open_sound(tmp_path / name) as sound:
            blocks = np.concatenate(list(sound.blocks()))
            again = np.concatenate(list(sound.blocks()))
        assert np.array_equal(blocks.T, load_audio(tmp_path / name)[0].numpy())
        assert np.array_equal(blocks, again)


def test_folders_are_searched_for_every_kind():
    assert {".m4a", ".opus", ".wma", ".w64", ".caf", ".aifc", ".oga", ".webm", ".rf64"} <= set(SUFFIXES)
