"""Frames of MPEG audio (MP3, AAC in ADTS): how long each is by its header, and where they begin and end in a file."""

from collections.abc import Callable
from typing import BinaryIO

MAX_JUNK = 1 << 16  # bytes before a frame that are stepped over
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
# kbit/s by (version 1, layer): 1 is layer III, 2 layer II, 3 layer I.
_KILOBITS = {
    (True, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (False, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
}


def find_frame(head: bytes, *, is_whole: bool) -> tuple[int, Callable[[bytes], int]] | None:
    """Where the first of two frames that follow each other begins, and what reads the length of its kind.

    Args:
        head: the beginning of a file.
        is_whole: whether that is all of it, which may be one frame.
    """
    for at in range(len(head) - 4):
        if head[at] != 0xFF or head[at + 1] & 0xE0 != 0xE0:
            continue
        length_of = adts_length if head[at + 1] & 0xF6 == 0xF0 else mpeg_length
        length = length_of(head[at : at + 7])
        following = head[at + length : at + length + 7]
        is_last = len(following) < 7 and (is_whole or len(following) > 0)
        if length and (length_of(following) or (at == 0 and is_last)):
            return at, length_of
    return None


def walk(file: BinaryIO, position: int, size: int, length_of: Callable[[bytes], int]) -> tuple[int, tuple[str, ...]]:
    """Frames from ``position`` on, and a fault if the last one is cut; junk between frames is stepped over."""
    count, skipped = 0, 0
    while position + 7 <= size:
        file.seek(position)
        head = file.read(7)
        length = length_of(head)
        if not length:
            if head[:3] in (b"TAG", b"APE", b"ID3") or skipped > MAX_JUNK:
                break
            position, skipped = position + 1, skipped + 1
            continue
        if position + length > size:
            return count, ("it ends in the middle of a frame, so it is cut off",)
        count, position, skipped = count + 1, position + length, 0
    return count, ()


def mpeg_length(head: bytes) -> int:
    """Bytes of the MPEG audio frame that ``head`` starts, 0 if it starts none (ISO 11172-3, 1993)."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bits, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 0 or bits in (0, 15) or rate == 3:
        return 0
    kilobits, hertz, padding = _KILOBITS[version == 3, layer][bits - 1], _RATES[version][rate], head[2] >> 1 & 1
    if layer == 3:
        return (12_000 * kilobits // hertz + padding) * 4
    return (72_000 if layer == 1 and version != 3 else 144_000) * kilobits // hertz + padding


def adts_length(head: bytes) -> int:
    """Bytes of the ADTS frame that ``head`` starts, 0 if it starts none (ISO 13818-7)."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 else 0
