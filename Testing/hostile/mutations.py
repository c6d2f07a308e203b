"""Ways to spoil a file: by accident, and on purpose."""

from __future__ import annotations

import gzip
import random
import re
import struct
import zlib
from collections.abc import Callable

from seeds import Seed

SECRET_NAME = "secret.raw"  # beside the folder that files are read in; what it holds must never come out
SECRET = b"a secret of somebody else, which no image may show. " * 64

NUMBERS = (
    "-1", "0", "1", "2", "3", "7", "256", "65536", "2147483647", "2147483648", "4294967296", "9223372036854775807",
    "18446744073709551616", "-9223372036854775808", "1e308", "-1e308", "1e-308", "nan", "inf", "-inf", "0x10", "1.5",
)  # fmt: skip
WORDS = (
    "", " ", "none", "LOCAL", "LIST", f"../{SECRET_NAME}", "/etc/hostname", "/dev/zero", "%d.raw 1 9 1", "True",
    "MET_DOUBLE", "MET_OTHER", "raw", "gzip", "ascii", "hex", "bzip2", "double", "block", "\0", "é", "A" * 5000,
    "(1,0,0", "(nan,0,0) (0,1,0) (0,0,1)", "list domain domain domain", "|~^|~^", "{{7*7}}", "<script>x</script>",
)  # fmt: skip


def flip_packed(seed: Seed, draw: random.Random) -> bytes:
    """One flipped bit in the packed voxels: damage that a checksum has to notice."""
    assert seed.packed is not None
    return _flip(seed.content, draw.randrange(8 * seed.packed[0], 8 * seed.packed[1]))


def flip(seed: Seed, draw: random.Random) -> bytes:
    """One to four flipped bits anywhere, more often in the header."""
    content = seed.content
    for _ in range(draw.randint(1, 4)):
        end = seed.header if seed.header and draw.random() < 0.7 else len(content)
        content = _flip(content, draw.randrange(8 * min(end, len(content))))
    return content


def cut(seed: Seed, draw: random.Random) -> bytes:
    return seed.content[: draw.randrange(len(seed.content))]


def extend(seed: Seed, draw: random.Random) -> bytes:
    return seed.content + draw.choice([b"\0", bytes(600), draw.randbytes(40), seed.content])


def splice(seed: Seed, draw: random.Random) -> bytes:
    """A piece moved, repeated or overwritten."""
    a, b = sorted(draw.randrange(len(seed.content)) for _ in range(2))
    piece = draw.choice([seed.content[a:b], draw.randbytes(b - a), bytes(b - a)])
    at = draw.randrange(len(seed.content))
    return seed.content[:at] + piece + seed.content[at + draw.choice([0, len(piece)]) :]


def edit_header(seed: Seed, draw: random.Random) -> bytes:
    """A header that somebody wrote on purpose, around good voxels."""
    if seed.name.endswith((".nii", ".nii.gz")):
        return _edit_nifti(seed, draw)
    if seed.name.endswith(".png"):
        return _edit_png(seed, draw)
    if seed.name.endswith(".dcm"):
        return _edit_dicom(seed, draw)
    if seed.header:
        return _edit_lines(seed, draw)
    return splice(seed, draw)


MUTATIONS: dict[str, Callable[[Seed, random.Random], bytes]] = {
    "bit of packed voxels": flip_packed,
    "bits anywhere": flip,
    "cut": cut,
    "extended": extend,
    "spliced": splice,
    "header edited": edit_header,
}


def _flip(content: bytes, bit: int) -> bytes:
    spoiled = bytearray(content)
    spoiled[bit // 8] ^= 1 << bit % 8
    return bytes(spoiled)


def _edit_lines(seed: Seed, draw: random.Random) -> bytes:
    head, rest = seed.content[: seed.header], seed.content[seed.header :]
    lines = head.split(b"\n")
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        at = draw.randrange(len(lines))
        what = draw.random()
        if what < 0.12:
            del lines[at : at + 1]
        elif what < 0.2:
            lines.insert(at, lines[draw.randrange(len(lines))])
        elif what < 0.25:
            lines.insert(at, draw.randbytes(draw.randrange(200)))
        else:
            lines[at] = _edit_line(lines[at], draw)
        lines = lines or [b""]
    return b"\n".join(lines) + rest


def _edit_line(line: bytes, draw: random.Random) -> bytes:
    key, mark, value = [*re.split(rb"(:=|: | = )", line, maxsplit=1), b"", b""][:3]
    words = value.split(b" ")
    if draw.random() < 0.6 and value:
        words[draw.randrange(len(words))] = draw.choice(NUMBERS).encode()
        return key + mark + b" ".join(words)
    if draw.random() < 0.2:
        return key + mark + b" ".join(words * draw.choice([0, 2, 1000]))
    return key + mark + draw.choice(WORDS + NUMBERS).encode()


_NIFTI_FIELDS = [
    *((offset, "<h") for offset in (70, 72, 252, 254, *range(40, 56, 2))),
    *((offset, "<f") for offset in (108, 112, 116, *range(76, 108, 4), *range(256, 328, 4))),
    *((0, "<i"), (344, "<i"), (123, "<B")),
]


def _edit_nifti(seed: Seed, draw: random.Random) -> bytes:
    packed = seed.name.endswith(".gz")
    content = bytearray(gzip.decompress(seed.content) if packed else seed.content)
    for _ in range(draw.choice([1, 1, 2, 3])):
        offset, form = draw.choice(_NIFTI_FIELDS)
        if form == "<f":
            value = draw.choice([0.0, -1.0, 1e-38, 1e38, float("nan"), float("inf"), 352.0, 1e15, draw.uniform(-9, 9)])
        else:
            largest = 2 ** (8 * struct.calcsize(form) - (form != "<B")) - 1
            value = draw.choice(
                [0, 1, 2, 3, 4, 7, 8, 16, 32, 64, 128, 256 % (largest + 1), largest, draw.randrange(largest)]
            )
            value = -value if form != "<B" and draw.random() < 0.3 else value
        struct.pack_into(form, content, offset, value)
    return gzip.compress(bytes(content), mtime=0) if packed else bytes(content)


def _edit_png(seed: Seed, draw: random.Random) -> bytes:
    """Chunks changed, left out or repeated, with checksums that are right."""
    chunks, at = [], 8
    while at < len(seed.content):
        length = int.from_bytes(seed.content[at : at + 4], "big")
        chunks.append((seed.content[at + 4 : at + 8], seed.content[at + 8 : at + 8 + length]))
        at += 12 + length
    for _ in range(draw.choice([1, 1, 2])):
        number = draw.randrange(len(chunks))
        kind, body = chunks[number]
        what = draw.random()
        if kind == b"IHDR" and what < 0.7:
            size = struct.pack(">II", *(draw.choice([0, 1, 20, 24, 65535, 2**31 - 1]) for _ in range(2)))
            body = draw.choice([size + body[8:], body[:8] + draw.randbytes(5), body[:8] + b"\x10\x06\0\0\1"])
            chunks[number] = (kind, body)
        elif kind == b"IDAT" and what < 0.7:
            pixels = zlib.decompress(body)
            other = draw.choice([pixels[: len(pixels) // 2], pixels * 40, draw.randbytes(len(pixels)), bytes(10**7)])
            chunks[number] = (kind, zlib.compress(other))
        elif what < 0.85:
            del chunks[number]
        else:
            chunks.insert(
                number, draw.choice([*chunks, (b"acTL", bytes(8)), (b"zTXt", b"k\0\0" + zlib.compress(bytes(10**7)))])
            )
        chunks = chunks or [(b"IEND", b"")]
    return seed.content[:8] + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


_DICOM_VALUES = {
    "US": (0, 1, 2, 3, 7, 8, 16, 32, 64, 65535, 512),
    "IS": ("-1", "0", "300000000", "99999999999", "x", "1\\2", ""),
    "DS": ("0", "-1", "nan", "1e400", "x", "1\\2\\3\\4", "", "1e-30", "1e30"),
    "UI": ("", "1.2.3", "9" * 70, "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.2", "../x"),
}


def _edit_dicom(seed: Seed, draw: random.Random) -> bytes:
    """Values of elements changed with lengths that fit, or a length that does not."""
    elements = list(re.finditer(rb"[\x02\x08\x10\x18\x20\x28]\0..(US|IS|DS|UI|CS|LO)(..)", seed.content, re.DOTALL))
    if not elements or draw.random() < 0.15:  # implicit lengths, or none to be seen
        return splice(seed, draw)
    content = seed.content
    for found in sorted(
        draw.sample(elements, min(len(elements), draw.choice([1, 1, 2]))), key=lambda one: -one.start()
    ):
        length = int.from_bytes(found[2], "little")
        if draw.random() < 0.15:
            content = content[: found.start(2)] + draw.randbytes(2) + content[found.end(2) :]
            continue
        kind = found[1].decode()
        value = draw.choice(_DICOM_VALUES.get(kind, ("", "X" * 64, "\\" * 9, "é")))
        body = struct.pack("<H", value) if isinstance(value, int) else value.encode() + b" " * (len(value.encode()) % 2)
        start = found.end(2)
        content = content[: found.start(2)] + len(body).to_bytes(2, "little") + body + content[start + length :]
    return content
