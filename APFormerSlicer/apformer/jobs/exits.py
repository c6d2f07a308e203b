"""Why a worker ended or a job failed, in words a user can act on."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from ..errors import APFormerError
from .messages import JobError

# What programs and libraries print when memory runs out: Python, torch on GPU and CPU, C++, CUDA libraries, Linux.
_MEMORY_WORDS = re.compile(
    r"MemoryError|OutOfMemoryError|out of memory|not enough memory|bad_alloc|cannot allocate memory|"
    r"CUBLAS_STATUS_ALLOC_FAILED|unable to allocate|paging file is too small",
    re.IGNORECASE,
)
# NTSTATUS values as exit codes, from Microsoft's list [MS-ERREF] 2.3.1.
_WINDOWS_MEMORY = {0xC0000017: "no memory", 0xC000012D: "commitment limit", 0xC000009A: "insufficient resources"}
_WINDOWS = {
    **_WINDOWS_MEMORY,
    0xC0000005: "access violation",
    0xC00000FD: "stack overflow",
    0xC000001D: "illegal instruction",
    0xC0000135: "a DLL was not found",
    0xC0000142: "a DLL could not start",
    0xC000013A: "interrupted",
    0xC0000374: "heap corruption",
    0xC0000409: "stopped by the runtime library",
}
_OF_SHELLS = 128  # a launcher or shell reports a child that signal n ended as status 128 + n
_MISSING = re.compile(r"No module named '?([\w.]+)")
_FOLDERS = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][^\\/\s'\":,;]+)*[\\/](?=[^\\/\s'\":,;]+)")
_MEMORY_REMEDY = "Close other programs, use a region of interest, or choose the CPU instead of the GPU."


def describe_exit(code: int) -> str:
    """An exit code in words: "was ended by SIGKILL", "ended with status 3"."""
    number = _signal(code)
    if number is not None:
        try:
            return f"was ended by {signal.Signals(number).name}"
        except ValueError:
            return f"was ended by signal {number}"
    status = code & 0xFFFFFFFF
    if status in _WINDOWS:
        return f"ended with Windows status 0x{status:08X} ({_WINDOWS[status]})"
    return f"ended with status {code}"


def memory_ran_out(code: int | None, lines: Sequence[str]) -> bool:
    """Whether an exit code and the last lines of a log tell of exhausted memory."""
    if any(_MEMORY_WORDS.search(line) for line in lines):
        return True
    return code is not None and (_signal(code) == 9 or code & 0xFFFFFFFF in _WINDOWS_MEMORY)


def explain_exit(code: int, lines: Sequence[str], log: str | None) -> JobError:
    """Why a worker that nobody asked to stop is gone.

    Args:
        code: as `subprocess` gives it: minus the signal on POSIX, the status on Windows.
        lines: the end of its log.
    """
    what = f"The program that does the work {describe_exit(code)}."
    missing = next((found[1] for line in reversed(lines) if (found := _MISSING.search(line))), None)
    if memory_ran_out(code, lines):
        meaning = "Most likely the memory of this computer or of its GPU ran out; the job is lost."
        remedy = _MEMORY_REMEDY
    elif missing is not None:
        meaning = f"The Python it runs in lacks the package {missing}."
        remedy = "Install this program's requirements into that Python, or choose another one."
    elif _signal(code) == 15:
        meaning, remedy = "Another program ended it; the job is lost.", "Start the job again."
    else:
        meaning = "It crashed; the job is lost, everything else is unchanged."
        remedy = "Start the job again. If it happens again, report it with the log file."
    return JobError(what, meaning, remedy, log, lines)


def explain_error(error: BaseException, log: str | None) -> JobError:
    """What a job raised; folders of paths in foreign messages are left out, the log has them."""
    if isinstance(error, JobError):
        return error
    if isinstance(error, APFormerError):
        return JobError(error.what, error.meaning, error.remedy, log)
    if isinstance(error, MemoryError) or memory_ran_out(None, [str(error)]):
        return JobError(
            "The memory of this computer or of its GPU ran out.", "There is no result.", _MEMORY_REMEDY, log
        )
    if isinstance(error, ModuleNotFoundError):
        return JobError(
            f"The package {error.name} is not installed.",
            "This job needs it.",
            "Install this program's requirements into the Python that does the work.",
            log,
        )
    told = str(getattr(error, "strerror", None) or error).strip().partition("\n")[0][:200]
    return JobError(
        f"Something unexpected happened: {type(error).__name__}: {_FOLDERS.sub('', told)}.",
        "The work was stopped. This is a fault of the program or of its installation.",
        "Start the job again. If it happens again, report it with the log file.",
        log,
    )


def _signal(code: int) -> int | None:
    """The signal an exit code tells of."""
    if -64 <= code < 0:
        return -code
    return code - _OF_SHELLS if _OF_SHELLS < code <= _OF_SHELLS + 64 else None
