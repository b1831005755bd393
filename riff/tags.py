"""Text fields of WAV and MP3 files, which libsndfile loses in part."""

import struct
from pathlib import Path

from riff.errors import RiffError

# Field names are soundfile's. RIFF INFO chunks and ID3v2.3 frames in the same order.
FIELDS = {
    "title": (b"INAM", b"TIT2"),
    "artist": (b"IART", b"TPE1"),
    "album": (b"IPRD", b"TALB"),
    "date": (b"ICRD", b"TYER"),
    "genre": (b"IGNR", b"TCON"),
    "comment": (b"ICMT", b"COMM"),
    "software": (b"ISFT", b"TSSE"),
    "copyright": (b"ICOP", b"TCOP"),
    "tracknumber": (b"ITRK", b"TRCK"),
}

# A FLAC metadata block holds 16 MB and an ID3 tag 256 MB; no honest text comes near.
_MAX_BYTES = 1_000_000


def clean_texts(metadata: dict[str, str]) -> dict[str, str]:
    """Metadata as every container can hold it: without NUL characters, lone surrogates and empty texts.

    Raises:
        RiffError: an unknown field, a value that is not text, or more than a megabyte in all.
    """
    texts: dict[str, str] = {}
    for field, text in metadata.items():
        if field not in FIELDS or not isinstance(text, str):
            raise RiffError(f"metadata field {field!r} is {text!r}; use text in one of {', '.join(FIELDS)}")
        texts[field] = text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
    size = sum(len(text.encode("utf-8")) for text in texts.values())
    if size > _MAX_BYTES:
        raise RiffError(f"the metadata has {size} bytes; use at most {_MAX_BYTES}")
    return {field: text for field, text in texts.items() if text}


def id3_tag(metadata: dict[str, str]) -> bytes:
    """An ID3v2.3 tag in UTF-16 to stand before an MP3 stream, or nothing without metadata.

    libsndfile's own tag loses the software field and every character outside Latin-1.

    Args:
        metadata: a field of ``FIELDS`` to its text.
    """
    frames = b""
    for field, text in metadata.items():
        # Encoding 1 is UTF-16; a comment has a language and an (empty) description before its text.
        start = b"\x01eng" + "\0".encode("utf-16") if field == "comment" else b"\x01"
        body = start + text.encode("utf-16")
        frames += FIELDS[field][1] + struct.pack(">IH", len(body), 0) + body
    # The length is written in four digits of 7 bits.
    length = bytes(len(frames) >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + length + frames if frames else b""


def finish_wav(content: bytearray, metadata: dict[str, str]) -> bytearray:
    """Put the metadata into a WAV file as a LIST INFO chunk, and zero the time of writing.

    libsndfile drops all texts when they exceed some thousand bytes, and stamps float files with the clock, so
    that equal sounds would not give equal bytes.

    Args:
        content: a WAV file; it is changed in place.
        metadata: a field of ``FIELDS`` to its text.

    Returns:
        ``content``.
    """
    texts = b""
    for field, text in metadata.items():
        body = text.encode("utf-8") + b"\0"
        texts += FIELDS[field][0] + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
    position = 12
    while position + 8 <= len(content) and content[position : position + 4] != b"data":
        if content[position : position + 4] == b"PEAK":
            content[position + 12 : position + 16] = bytes(4)
        size = struct.unpack_from("<I", content, position + 4)[0]
        position += 8 + size + size % 2
    if texts:
        content[position:position] = b"LIST" + struct.pack("<I", len(texts) + 4) + b"INFO" + texts
        struct.pack_into("<I", content, 4, len(content) - 8)
    return content


def read_wav_texts(path: str | Path) -> dict[str, str]:
    """The fields of a WAV file's LIST INFO chunks; libsndfile reads none of a chunk beyond some kilobytes.

    Args:
        path: a file that starts as a WAV file does.

    Returns:
        A field of ``FIELDS`` to its text; what is damaged is left out.
    """
    names = {codes[0]: field for field, codes in FIELDS.items()}
    texts: dict[str, str] = {}
    with open(path, "rb") as file:
        file.seek(12)
        while len(header := file.read(8)) == 8:
            size = struct.unpack("<I", header[4:])[0]
            following = file.tell() + size + size % 2
            if header[:4] == b"LIST" and size <= 1 << 24 and file.read(4) == b"INFO":
                texts |= _info_texts(file.read(size - 4), names)
            file.seek(following)
    return texts


def _info_texts(content: bytes, names: dict[bytes, str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    position = 0
    while position + 8 <= len(content):
        code, size = struct.unpack_from("<4sI", content, position)
        body = content[position + 8 : position + 8 + size].split(b"\0")[0]
        if code in names:
            texts[names[code]] = body.decode("utf-8", "replace")
        position += 8 + size + size % 2
    return texts
