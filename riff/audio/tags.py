"""Text fields of sound files: ID3 and Vorbis comments by mutagen, and WAV's own chunks, which libsndfile loses."""

import io
import re
import struct
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import mutagen
from mutagen import id3
from mutagen.flac import FLAC
from mutagen.ogg import OggPage
from mutagen.oggvorbis import OggVorbis

from riff.utils.errors import RiffError

MACHINE_MADE = "machine-made"
# The term for what a trained model made, of the International Press Telecommunications Council's list of source types:
# https://cv.iptc.org/newscodes/digitalsourcetype/
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

# Field names are soundfile's, but for source_type. RIFF INFO chunks and ID3v2.3 frames in the same order.
FIELDS = {
    "title": (b"INAM", "TIT2"),
    "artist": (b"IART", "TPE1"),
    "album": (b"IPRD", "TALB"),
    "date": (b"ICRD", "TYER"),
    "genre": (b"IGNR", "TCON"),
    "comment": (b"ICMT", "COMM"),
    "software": (b"ISFT", "TSSE"),
    "copyright": (b"ICOP", "TCOP"),
    "tracknumber": (b"ITRK", "TRCK"),
    "source_type": (b"ISRF", "TXXX"),
}
SOURCE_TYPE_NAME = "digitalSourceType"  # in ID3's TXXX frame and in Vorbis comments

# A FLAC metadata block holds 16 MB and an ID3 tag 256 MB; no honest text comes near.
MAX_BYTES = 1_000_000


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
    if size > MAX_BYTES:
        raise RiffError(f"the metadata has {size} bytes; use at most {MAX_BYTES}")
    return {field: text for field, text in texts.items() if text}


def xmp_packet(source_type: str) -> str:
    """An XMP packet (ISO 16684-1) that says where a file comes from, as IPTC's ``DigitalSourceType``."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
        f"<Iptc4xmpExt:DigitalSourceType>{escape(source_type)}</Iptc4xmpExt:DigitalSourceType>"
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    )


def id3_tag(metadata: dict[str, str]) -> bytes:
    """An ID3v2.3 tag in UTF-16 to stand before an MP3 stream or in a WAV chunk, or nothing without metadata.

    libsndfile's own tag loses the software field and every character outside Latin-1.

    Args:
        metadata: a field of ``FIELDS`` to its text.
    """
    if not metadata:
        return b""
    tag = id3.ID3()
    for field, text in metadata.items():
        name = FIELDS[field][1]
        more = {"COMM": {"lang": "eng", "desc": ""}, "TXXX": {"desc": SOURCE_TYPE_NAME}}.get(name, {})
        tag.add(getattr(id3, name)(encoding=id3.Encoding.UTF16, text=[text], **more))
    if "source_type" in metadata:
        # Where XMP stands in an MP3 (Adobe's XMP specification, part 3).
        tag.add(id3.PRIV(owner="XMP", data=xmp_packet(metadata["source_type"]).encode()))
    buffer = io.BytesIO()
    tag.save(buffer, v1=0, v2_version=3, padding=_no_padding)
    return buffer.getvalue()


def finish_flac(content: bytearray, metadata: dict[str, str]) -> bytearray:
    """A FLAC file with the metadata as Vorbis comments, which may have any name, unlike libsndfile's."""
    if not metadata:
        return content
    buffer = io.BytesIO(content)
    file: Any = FLAC(buffer)
    if file.tags is None:
        file.add_tags()
    file.tags.clear()
    _put_comments(file.tags, metadata)
    buffer.seek(0)
    file.save(buffer, padding=_no_padding)
    return bytearray(buffer.getbuffer())


def finish_ogg(content: bytearray, metadata: dict[str, str]) -> bytearray:
    """An OGG file with the metadata as Vorbis comments, and a serial number that is not random.

    libsndfile takes the number from the clock, so that equal sounds would not give equal bytes.
    """
    buffer = io.BytesIO(content)
    file: Any = OggVorbis(buffer)
    file.tags.clear()
    _put_comments(file.tags, metadata)
    buffer.seek(0)
    file.save(buffer, padding=_no_padding)
    buffer.seek(0)
    finished = bytearray()
    while buffer.tell() < len(buffer.getbuffer()):
        page = OggPage(buffer)
        page.serial = 1
        finished += page.write()
    return finished


def _put_comments(tags: Any, metadata: dict[str, str]) -> None:
    for field, text in metadata.items():
        tags[SOURCE_TYPE_NAME.upper() if field == "source_type" else field.upper()] = [text]


def _no_padding(info: "mutagen.PaddingInfo") -> int:
    return 0


def finish_wav(content: bytearray, metadata: dict[str, str]) -> bytearray:
    """Put the metadata into a WAV file as LIST INFO and ID3 chunks, and zero the time of writing.

    libsndfile drops all texts when they exceed some thousand bytes, and stamps float files with the clock, so
    that equal sounds would not give equal bytes. INFO is what most software reads, the ID3 chunk what says its
    encoding, and ``_PMX`` where XMP stands in a WAV file (Adobe's XMP specification, part 3).

    Args:
        content: a WAV file; it is changed in place.
        metadata: a field of ``FIELDS`` to its text.

    Returns:
        ``content``.
    """
    texts = b""
    for field, text in metadata.items():
        texts += _chunk(FIELDS[field][0], text.encode("utf-8") + b"\0")
    position = 12
    while position + 8 <= len(content) and content[position : position + 4] != b"data":
        if content[position : position + 4] == b"PEAK":
            content[position + 12 : position + 16] = bytes(4)
        size = struct.unpack_from("<I", content, position + 4)[0]
        position += 8 + size + size % 2
    if texts:
        content[position:position] = _chunk(b"LIST", b"INFO" + texts)
        content += bytes(len(content) % 2) + _chunk(b"id3 ", id3_tag(metadata))
        if "source_type" in metadata:
            content += _chunk(b"_PMX", xmp_packet(metadata["source_type"]).encode())
        struct.pack_into("<I", content, 4, len(content) - 8)
    return content


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def read_source_type(path: str | Path, container: str) -> str | None:
    """The source type that a FLAC, OGG or MP3 file states, which libsndfile does not read.

    Args:
        path: the file, which may be damaged.
        container: "FLAC", "OGG" or "MP3"; anything else has none.
    """
    try:
        if container == "MP3":
            return _id3_source_type(Path(path))
        if container in ("FLAC", "OGG"):
            tags: Any = (FLAC if container == "FLAC" else OggVorbis)(path).tags
            found = tags.get(SOURCE_TYPE_NAME) if tags else None
            return str(found[0]) if found else None
    except (mutagen.MutagenError, OSError, EOFError, ArithmeticError, LookupError, ValueError, struct.error):
        pass  # a damaged tag says nothing
    return None


def _id3_source_type(path: Path) -> str | None:
    """That of the XMP packet in an ID3 tag.

    Looked for rather than parsed: mutagen takes seconds to decode a long text, and unpacks what may be a bomb.
    """
    with open(path, "rb") as file:
        header = file.read(10)
        # The length is written in four digits of 7 bits.
        size = sum((digit & 127) << shift for digit, shift in zip(header[6:10], (21, 14, 7, 0), strict=True))
        tag = file.read(size) if header[:3] == b"ID3" and size <= 4 * MAX_BYTES else b""
    found = re.search(rb"<Iptc4xmpExt:DigitalSourceType>([^<]{1,200})<", tag)
    return found[1].decode("utf-8", "replace") if found else None


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
