"""How the C library keeps memory that was freed: for the next step while there is work, given back after it.

glibc asks the kernel anew for every block above 32 MB and gives it back when it is freed; each of its pages is then
zeroed and mapped again. One training step in three dimensions (patches of 64 x 96 x 64) took 750,000 page faults so, a
third of its processor time, and takes 1 when freed memory is kept (`Testing/bench/measure_allocator.py`).
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
from contextlib import suppress

_GLIBC = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
# By environment variable: the parameter and its value, as in mallopt(3); parameters are C ints.
_SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": (-3, 1 << 30),  # only larger blocks are the kernel's again
    "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1),  # so much stays at the end of the heap; `give_back` returns it
    "MALLOC_TOP_PAD_": (-2, 64 << 20),  # the heap grows in steps of this
    # The heap of every thread but the first ends at 64 MB, beyond which blocks are the kernel's again. Jobs run in a
    # thread: all take from the first one's.
    "MALLOC_ARENA_MAX": (-8, 1),
}
ENVIRONMENT = {name: str(value) for name, (_, value) in _SETTINGS.items()} if _GLIBC else {}


def keep_freed() -> None:
    """Let this process keep what it frees; what a user has set stays. To be called before other threads allocate.

    Nothing happens where the C library is not glibc.
    """
    with suppress(OSError, AttributeError):
        for name, (parameter, value) in _SETTINGS.items() if _GLIBC else ():
            if name not in os.environ:
                ctypes.CDLL(None).mallopt(parameter, value)


def give_back() -> None:
    """Return to the system what is not in use; a few milliseconds per gigabyte."""
    gc.collect()
    with suppress(OSError, AttributeError):
        if _GLIBC:
            ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
        elif sys.platform == "darwin":
            ctypes.CDLL(None).malloc_zone_pressure_relief(None, ctypes.c_size_t(0))
