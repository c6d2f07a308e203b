"""Whether a file is DICOM, by its first bytes."""

from __future__ import annotations

import struct
from pathlib import Path

_VRS = tuple(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_ENCODINGS = (("<", True), ("<", False), (">", True))  # byte order, explicit VR
_FIRST_GROUPS = (0x0002, 0x0008)
_LONGEST_FIRST_VALUE = 1 << 16  # bytes; a header begins with its length, a character set, an image type or a UID


def looks_like_dicom(path: Path) -> bool:
    """True when the file carries DICOM's mark after its 128-byte preamble, or begins with data elements at once, as
    files of old archives and of some scanners do."""
    with path.open("rb") as stream:
        head = stream.read(256)
    return head[128:132] == b"DICM" or any(_begins_with_elements(head, *encoding) for encoding in _ENCODINGS)


def _begins_with_elements(head: bytes, order: str, explicit: bool) -> bool:
    """True for two elements of the first groups in a row, or one that is longer than `head`."""
    at, last = 0, (0, -1)
    for _ in range(2):
        if len(head) < at + 12:
            return at > len(head)
        group, element = struct.unpack_from(f"{order}HH", head, at)
        vr = head[at + 4 : at + 6]
        if group not in _FIRST_GROUPS or (group, element) <= last or (explicit and vr not in _VRS):
            return False
        if not explicit:
            length, start = struct.unpack_from(f"{order}L", head, at + 4)[0], at + 8
        elif vr in _LONG_VRS:
            length, start = struct.unpack_from(f"{order}L", head, at + 8)[0], at + 12
        else:
            length, start = struct.unpack_from(f"{order}H", head, at + 6)[0], at + 8
        if length > _LONGEST_FIRST_VALUE or length % 2:
            return False
        at, last = start + length, (group, element)
    return True
