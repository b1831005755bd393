"""Sound file containers, recognised by their bytes: which decoder may read a file, and what its header promises.

Decoders of rare formats inside libsndfile have memory errors that no release fixes, so libsndfile only receives plain
PCM, float, FLAC, Vorbis, Opus and MP3 in ordinary containers. Everything else goes to FFmpeg (PyAV), with the demuxer
named here and a list of codecs that it may use.
"""

import dataclasses
import os
import re
import struct
from pathlib import Path
from typing import BinaryIO

from riff.audio.mpeg import MAX_JUNK, adts_length, find_frame, mpeg_length, walk
from riff.utils.errors import RiffError
from riff.utils.files import check_readable

READABLE = "WAV, FLAC, OGG, MP3 or AIFF"  # what messages recommend; more is read
# Suffixes of the sound files that a folder is searched for; single files are recognised by their bytes.
SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".aifc", ".oga", ".opus", ".m4a", ".m4b", ".mp4", ".aac"),
    *(".wma", ".rf64", ".bwf", ".w64", ".caf", ".wv", ".ape", ".tta", ".mka", ".webm", ".au", ".snd", ".mp2"),
)
# What FFmpeg may decode: codecs that are fuzzed all the time.
FFMPEG_CODECS = re.compile(
    r"pcm_\w+|adpcm_(ms|ima_wav|ima_qt|g726)|flac|alac|aac|mp[23](float)?|vorbis|opus|wma(v1|v2|pro|lossless)|"
    r"wavpack|tta|ape|e?ac3|gsm_ms"
)
_WAV_BITS = {1: (8, 16, 24, 32), 3: (32, 64)}
_WAV_CODECS = {
    2: "MS ADPCM",
    6: "A-law",
    7: "mu-law",
    0x11: "IMA ADPCM",
    0x31: "GSM 6.10",
    0x50: "MP2",
    0x55: "MP3 in WAV",
}
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_GUID_AMBISONIC = bytes.fromhex("00002107d3118644c8c1ca000000")
_AIFC_PLAIN = (b"NONE", b"sowt", b"twos", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64")
_AIFC_CODED = (b"ulaw", b"ULAW", b"alaw", b"ALAW", b"ima4", b"alac", b"23ni", b"42ni", b"raw ")
_OGG_CODECS = {b"\x01vorbis": "Vorbis", b"OpusHead": "Opus", b"\x7fFLAC": "FLAC"}
# First bytes of the containers that go to FFmpeg whole: name and demuxer.
_OTHERS = (
    (rb"RF64....WAVE|BW64....WAVE", "RF64", "wav"),
    (rb"riff\x2e\x91\xcf\x11", "W64", "w64"),
    (rb"caff", "CAF", "caf"),
    (rb"....ftyp|....moov|....mdat|....wide|....free|....skip", "M4A", "mov"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA", "asf"),
    (rb"\x1a\x45\xdf\xa3", "WebM", "matroska"),
    (rb"wvpk", "WavPack", "wv"),
    (rb"MAC ", "APE", "ape"),
    (rb"TTA1", "TTA", "tta"),
    (rb"\.snd", "AU", "au"),
)
_UNKNOWN = 0xFFFFFF00  # chunk sizes from here on mean "not known yet": written into a pipe


@dataclasses.dataclass(frozen=True)
class SoundPart:
    """A stretch of a file that is a sound file of its own.

    Attributes:
        start: first byte.
        stop: byte after the last one.
        demuxer: FFmpeg's demuxer, or None for libsndfile.
        frames: samples per channel by the header, where that can be believed; else the decoder is asked.
    """

    start: int
    stop: int
    demuxer: str | None = None
    frames: int | None = None


@dataclasses.dataclass(frozen=True)
class SoundFormat:
    """What the bytes of a sound file say before anything is decoded.

    Attributes:
        container: ``"WAV"``, ``"FLAC"``, ``"OGG"``, ``"MP3"``, ``"AIFF"``, ``"M4A"``, ...
        parts: the sound files inside, end to end; more than one for chained OGG and joined MP3.
        faults: what is wrong with it, in words.
        mask: WAV's channel mask; 0 where the file does not name its channels.
        ambisonic: whether the channels are a sound field, whose first is the sum of all directions.
    """

    container: str
    parts: tuple[SoundPart, ...]
    faults: tuple[str, ...] = ()
    mask: int = 0
    ambisonic: bool = False


def sniff_container(path: str | Path) -> str:
    """The container of a sound file that is safe to decode; errors as in :func:`inspect_sound`."""
    return inspect_sound(path).container


def inspect_sound(path: str | Path) -> SoundFormat:
    """Recognise a sound file by its bytes and not by its suffix.

    Args:
        path: the file; pipes and devices are refused before they are opened, so that none can hang.

    Raises:
        RiffError: it cannot be read, is empty, is no sound file, or is one of a kind that is not let through.
    """
    check_readable(path, expected=f"a sound file ({READABLE})")
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = _after_tags(file)
        file.seek(start)
        head = file.read(64)
        if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
            return _inspect_wav(file, path, start, size)
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            return _inspect_aiff(file, path, start, size)
        if head[:4] == b"OggS":
            return _inspect_ogg(file, path, start, size)
        if head[:4] == b"fLaC":
            # STREAMINFO holds the number of samples in 36 bits; 0 was written into a pipe.
            known = int.from_bytes(head[21:26], "big") & 0xFFFFFFFFF
            return SoundFormat("FLAC", (SoundPart(start, size, None if known or len(head) < 42 else "flac"),))
        for pattern, name, demuxer in _OTHERS:
            if re.match(pattern, head, re.DOTALL):
                look = {"CAF": _inspect_caf, "W64": _inspect_w64}.get(name)
                faults = look(file, start, size) if look else ()
                return SoundFormat(name, (SoundPart(start, size, demuxer),), faults)
        return _inspect_mpeg(file, path, start, size)


def _after_tags(file: BinaryIO, start: int = 0) -> int:
    """Where the sound begins behind any number of ID3v2 tags."""
    while True:
        file.seek(start)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3":
            return start
        # The length is four digits of 7 bits; a footer repeats the header.
        length = sum((digit & 127) << shift for digit, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        start += 10 + length + (10 if head[5] & 0x10 else 0)


def _inspect_wav(file: BinaryIO, path: str | Path, start: int, size: int) -> SoundFormat:
    content = _find_chunk(file, b"fmt ", "<", start + 12)
    if content is None or len(content[1]) < 16:
        raise RiffError(f"{path} is a damaged WAV file (it has no format header)")
    head = content[1]
    code, channels, _, _, frame_bytes, bits = struct.unpack("<HHIIHH", head[:16])
    mask, ambisonic = 0, False
    if code == 0xFFFE and len(head) >= 40 and head[26:40] in (_GUID_TAIL, _GUID_AMBISONIC):
        mask, code = struct.unpack("<IH", head[20:26])
        ambisonic = head[26:40] == _GUID_AMBISONIC
    demuxer = None if code in _WAV_BITS else "wav"
    if demuxer and code not in _WAV_CODECS:
        raise RiffError(f"{path} is a WAV file with codec {code:#x} inside; convert it to PCM or FLAC")
    if not demuxer and (bits not in _WAV_BITS[code] or frame_bytes != channels * bits // 8):
        raise RiffError(f"{path} is a WAV file with odd {bits}-bit samples; convert it to plain PCM")
    data = _find_chunk(file, b"data", "<", start + 12)
    faults: tuple[str, ...] = ()
    if data is not None and data[2] < _UNKNOWN:
        first, _, claimed = data
        if claimed > size - first:
            faults = (_cut(size - first, claimed, frame_bytes if not demuxer else 1),)
        elif _goes_on(file, first + claimed + claimed % 2, size):
            # A recorder that lost power leaves a size of 0, or that of its last save.
            faults = () if claimed == 0 else (f"its header says {claimed:,} bytes of {size - first:,}; all are read",)
            frames = None if demuxer else (size - first) // frame_bytes
            return SoundFormat("WAV", (SoundPart(start, size, "wav:ignore_length", frames),), faults, mask, ambisonic)
    return SoundFormat("WAV", (SoundPart(start, size, demuxer),), faults, mask, ambisonic)


def _inspect_aiff(file: BinaryIO, path: str | Path, start: int, size: int) -> SoundFormat:
    file.seek(start + 8)
    compressed = file.read(4) == b"AIFC"
    content = _find_chunk(file, b"COMM", ">", start + 12)
    if content is None or len(content[1]) < (22 if compressed else 18):
        raise RiffError(f"{path} is a damaged AIFF file (it has no format header)")
    codec = content[1][18:22] if compressed else b"NONE"
    if codec not in _AIFC_PLAIN + _AIFC_CODED:
        raise RiffError(f"{path} is an AIFF file with {codec.decode('latin-1')!r} inside; convert it to PCM or FLAC")
    data = _find_chunk(file, b"SSND", ">", start + 12)
    channels, _, bits = struct.unpack(">HIH", content[1][:8])
    frame_bytes = max(1, channels * -(-bits // 8)) if codec in _AIFC_PLAIN else 1
    short = data is not None and size - data[0] < data[2] < _UNKNOWN
    faults = (_cut(size - data[0] - 8, data[2] - 8, frame_bytes),) if data and short else ()
    return SoundFormat("AIFF", (SoundPart(start, size, None if codec in _AIFC_PLAIN else "aiff"),), faults)


def _inspect_caf(file: BinaryIO, start: int, size: int) -> tuple[str, ...]:
    """A fault if the data of a CAF file should reach past its end; a size of -1 is all that follows."""
    position = start + 8
    while position + 12 <= size:
        file.seek(position)
        name, length = struct.unpack(">4sq", file.read(12))
        position += 12 + max(0, length)
        if name == b"data" and position > size:
            return (_cut(size - position + length, length, 1),)
        if length < 0:
            break
    return ()


def _inspect_w64(file: BinaryIO, start: int, size: int) -> tuple[str, ...]:
    """The same for Sony's W64: names of 16 bytes, sizes of 8 that count the header, all padded to 8."""
    position = start + 40
    while position + 24 <= size:
        file.seek(position)
        name, length = struct.unpack("<16sQ", file.read(24))
        if name[:4] == b"data" and position + length > size:
            return (_cut(size - position - 24, length - 24, 1),)
        position += max(24, length + -length % 8)
    return ()


def _find_chunk(file: BinaryIO, name: bytes, order: str, position: int) -> tuple[int, bytes, int] | None:
    """Where the content of chunk ``name`` begins, its first 64 bytes and its size; ``order`` is ``<`` or ``>``."""
    for _ in range(1000):
        file.seek(position)
        header = file.read(8)
        if len(header) < 8:
            return None
        size = struct.unpack(order + "I", header[4:])[0]
        if header[:4] == name:
            return position + 8, file.read(min(size, 64)), size
        position += 8 + size + size % 2
    return None


def _cut(there: int, claimed: int, unit: int) -> str:
    what = "samples" if unit > 1 else "bytes"
    return f"{max(0, there) // max(unit, 1):,} of {claimed // max(unit, 1):,} {what} are there"


def _goes_on(file: BinaryIO, position: int, size: int) -> bool:
    """Whether sound follows where a WAV file's data should end: no chunk's name, and not zeros alone."""
    file.seek(position)
    rest = file.read(8192)
    return size - position > 4096 and not re.match(rb"[ -~]{4}", rest) and any(rest)


def _inspect_ogg(file: BinaryIO, path: str | Path, start: int, size: int) -> SoundFormat:
    """Walk over the pages: where each link of a chain begins, whether pages are missing, whether the end is there."""
    file.seek(start)
    first = file.read(400)
    packet = first[27 + first[26] :] if len(first) > 27 else b""
    codec = next((name for magic, name in _OGG_CODECS.items() if packet.startswith(magic)), None)
    if codec is None:
        raise RiffError(f"{path} is an Ogg file without {', '.join(_OGG_CODECS.values())} inside; convert it to FLAC")
    channels = packet[{"Vorbis": 11, "Opus": 9}.get(codec, 9)] if len(packet) > 11 else 0
    links, position, inside, ended, lost = [start], start, False, False, 0
    numbers: dict[int, int] = {}
    while position + 27 <= size:
        file.seek(position)
        page = file.read(282)
        if page[:4] != b"OggS" or len(page) < 27 + page[26]:
            break
        serial, number = struct.unpack_from("<II", page, 14)
        if page[5] & 2 and inside:  # a beginning behind sound
            links.append(position)
            numbers.clear()
        lost += serial in numbers and number != numbers[serial] + 1
        numbers[serial] = number
        inside, ended = not page[5] & 2, bool(page[5] & 4)
        position += 27 + page[26] + sum(page[27 : 27 + page[26]])
    faults = [f"pages are missing at {lost} places"] if lost else []
    if position > size or not ended:
        faults.append("it is cut off, or its end mark is missing")
    # libsndfile neither decodes FLAC in Ogg nor says which channel is which.
    demuxer = "ogg" if codec == "FLAC" or channels > 2 else None
    parts = zip(links, [*links[1:], size], strict=True)
    return SoundFormat("OGG", tuple(SoundPart(first, last, demuxer) for first, last in parts), tuple(faults))


def _inspect_mpeg(file: BinaryIO, path: str | Path, start: int, size: int) -> SoundFormat:
    """MP3, or AAC in ADTS frames, behind some junk."""
    file.seek(start)
    head = file.read(MAX_JUNK)
    found = find_frame(head, is_whole=start + len(head) == size)
    if found is None:
        raise RiffError(f"{path} is not a readable sound file; use {READABLE}")
    at, length_of = found
    if length_of is adts_length:
        _, faults = walk(file, start + at, size, adts_length)
        return SoundFormat("AAC", (SoundPart(start + at, size, "aac"),), faults)
    return _inspect_mp3(file, start + at, size, tagged=start > 0 and at == 0)


def _inspect_mp3(file: BinaryIO, start: int, size: int, *, tagged: bool) -> SoundFormat:
    """One part for each Xing header that knows its size; the rest is for FFmpeg, after its frames are counted."""
    parts: list[SoundPart] = []
    faults: tuple[str, ...] = ()
    while len(parts) < 1000:
        file.seek(start)
        head = file.read(4096)
        length = mpeg_length(head)
        mark = re.search(rb"Xing|Info|VBRI", head[4:64])
        at = 4 + mark.start() if mark else 0
        stored = 0  # bytes of this part by its header
        if mark and mark[0] == b"VBRI":
            stored = int.from_bytes(head[at + 10 : at + 14], "big")
        elif mark and head[at + 7] & 3 == 3:  # it holds frames and bytes
            stored = int.from_bytes(head[at + 12 : at + 16], "big")
        if not stored:
            frames, faults = walk(file, start, size, mpeg_length)
            version1 = head[1] >> 3 & 3 == 3
            count = frames * (1152 if version1 or head[1] >> 1 & 3 == 2 else 576)
            parts.append(SoundPart(start, size, "mp3", count))
            break
        stop = _end_of_mp3(file, start + stored, length)
        if stop is None or stop >= size:
            # A header that knows of far less than there is was left by an editor.
            stale = size - start - stored > max(0.01 * stored, 4 * MAX_JUNK)
            parts.append(SoundPart(start, size, "mp3" if stale else None))
            break
        parts.append(SoundPart(start, stop))
        start = _after_tags(file, stop)
    if tagged:  # the decoder reads the tag as well
        parts[0] = dataclasses.replace(parts[0], start=0)
    return SoundFormat("MP3", tuple(parts), faults)


def _end_of_mp3(file: BinaryIO, stop: int, length: int) -> int | None:
    """Where another MP3 begins, if one does; LAME counts the frame that holds its header, others do not."""
    for end in (stop, stop + length):
        file.seek(end)
        head = file.read(7)
        if head[:3] == b"ID3" or mpeg_length(head):
            return end
        if head[:3] == b"TAG":  # ID3v1
            file.seek(end + 128)
            head = file.read(7)
            return end + 128 if head[:3] == b"ID3" or mpeg_length(head) else None
    return None
