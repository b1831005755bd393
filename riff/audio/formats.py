"""Sound file containers, told by their bytes: which files may reach a decoder.

Decoders of rare formats inside libsndfile have memory errors that no release mends, so a file is looked at
here first and only plain PCM, float, FLAC, Ogg and MP3 go on.
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO

from riff.utils.errors import RiffError
from riff.utils.files import check_readable

READABLE = "WAV, FLAC, OGG, MP3 or AIFF"
_WAV_BITS = {1: (8, 16, 24, 32), 3: (32, 64)}
_WAV_CODECS = {
    2: "MS ADPCM",
    6: "A-law",
    7: "mu-law",
    0x11: "IMA ADPCM",
    0x31: "GSM 6.10",
    0x55: "MP3 in WAV",
}
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_AIFC_PLAIN = (b"NONE", b"sowt", b"twos", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64")
_OGG_CODECS = {b"\x01vorbis": "Vorbis", b"OpusHead": "Opus", b"\x7fFLAC": "FLAC"}


def sniff_container(path: str | Path) -> str:
    """Name the container of a sound file that is safe to decode, by its first bytes and not by its suffix.

    Args:
        path: the file; pipes and devices are refused before they are opened, so that none can hang.

    Returns:
        ``"WAV"``, ``"FLAC"``, ``"OGG"``, ``"MP3"`` or ``"AIFF"``.

    Raises:
        RiffError: it cannot be read, is empty, is no sound file, or is one of a kind that is not let through.
    """
    if Path(path).suffix.lower() == ".raw":
        raise RiffError(f"{path} has the suffix .raw, sound without a header; rename it if it has one")
    check_readable(path, expected=f"a sound file ({READABLE})")
    with open(path, "rb") as file:
        return _sniff(file, path)


def _sniff(file: BinaryIO, path: str | Path) -> str:
    head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        _check_wav(file, path)
        return "WAV"
    if head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        _check_aiff(file, path, compressed=head[8:] == b"AIFC")
        return "AIFF"
    if head[:4] == b"OggS":
        _check_ogg(file, path)
        return "OGG"
    if head[:3] == b"ID3" and len(head) >= 10:
        # The tag's length is four 7-bit digits; the sound starts behind it.
        length = sum(digit << shift for digit, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(10 + length)
        head = file.read(4096).lstrip(b"\0")
    if head[:4] == b"fLaC":
        return "FLAC"
    if len(head) >= 4 and _is_mp3_frame(head):
        return "MP3"
    raise RiffError(f"{path} is not a readable sound file; use {READABLE}")


def _check_wav(file: BinaryIO, path: str | Path) -> None:
    content = _find_chunk(file, b"fmt ", "<")
    if content is None or len(content) < 16:
        raise RiffError(f"{path} is a damaged WAV file (it has no format header)")
    code, channels, _, _, frame_bytes, bits = struct.unpack("<HHIIHH", content[:16])
    if code == 0xFFFE and len(content) >= 40 and content[26:40] == _GUID_TAIL:
        code = struct.unpack("<H", content[24:26])[0]
    if code not in _WAV_BITS:
        name = _WAV_CODECS.get(code, f"codec {code:#x}")
        raise RiffError(f"{path} is a WAV file with {name} inside; convert it to PCM or FLAC")
    if bits not in _WAV_BITS[code] or frame_bytes != channels * bits // 8:
        raise RiffError(f"{path} is a WAV file with odd {bits}-bit samples; convert it to plain PCM")


def _check_aiff(file: BinaryIO, path: str | Path, *, compressed: bool) -> None:
    content = _find_chunk(file, b"COMM", ">")
    if content is None or len(content) < (22 if compressed else 18):
        raise RiffError(f"{path} is a damaged AIFF file (it has no format header)")
    if compressed and content[18:22] not in _AIFC_PLAIN:
        name = content[18:22].decode("latin-1")
        raise RiffError(f"{path} is an AIFF file with {name!r} inside; convert it to PCM or FLAC")


def _find_chunk(file: BinaryIO, name: bytes, order: str) -> bytes | None:
    """The first 64 bytes of chunk ``name``, from here on; ``order`` is ``<`` for RIFF and ``>`` for IFF."""
    for _ in range(1000):
        header = file.read(8)
        if len(header) < 8:
            return None
        size = struct.unpack(order + "I", header[4:])[0]
        if header[:4] == name:
            return file.read(min(size, 64))
        file.seek(size + size % 2, os.SEEK_CUR)
    return None


def _check_ogg(file: BinaryIO, path: str | Path) -> None:
    page = file.read(64)
    segments = page[14] if len(page) > 14 else 0
    packet = page[15 + segments :]
    if not any(packet.startswith(magic) for magic in _OGG_CODECS):
        raise RiffError(f"{path} is an Ogg file without {', '.join(_OGG_CODECS.values())} inside; convert it to FLAC")


def _is_mp3_frame(head: bytes) -> bool:
    """Whether ``head`` starts an MPEG audio frame: 11 sync bits and no reserved value (ISO 11172-3, 1993)."""
    synced = head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    return synced and version != 1 and layer != 0 and head[2] >> 4 != 15 and head[2] >> 2 & 3 != 3
