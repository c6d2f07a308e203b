"""Why a worker ended or a job failed, in words a user can act on."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from ..errors import APFormerError
from ..memory import ran_out, tells_of_exhaustion
from .messages import JobError
from .vitals import Vitals, kernel_ended_one

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
_KILL, _TERM = 9, 15  # Windows' signal module has no SIGKILL
_OF_SHELLS = 128  # a launcher or shell reports a child that signal n ended as status 128 + n
_MISSING = re.compile(r"No module named '?([\w.]+)")
_FOLDERS = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][^\\/\s'\":,;]+)*[\\/](?=[^\\/\s'\":,;]+)")
# What a process leaves that ended otherwise: a traceback of Python's, faulthandler's report, a shell's or C++'s words.
_LAST_WORDS = re.compile(
    r"^Traceback \(most recent call|^\w*(?:Error|Exception|Interrupt)\b|Fatal Python error|terminate called|"
    r"Segmentation fault|Aborted|No module named|: not found|No such file|cannot execute|can't open file"
)
_KILLED = re.compile(r"^(?:.*: line \d+: +\d+ )?Killed\b")  # dash and bash, of a child
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


def memory_ran_out(
    code: int | None, lines: Sequence[str], vitals: Vitals | None = None, kernel: bool | None = None
) -> bool:
    """Whether a process most likely ended because memory ran out.

    What it said itself and the statuses of Windows decide. An end without a word, by SIGKILL or with any status (a
    launcher hides the signal of its child), is put down to memory when the kernel says that it ended a process, or,
    where it does not tell, when memory was nearly gone. SIGKILL of which nothing is known is most often that.

    Args:
        code: as `subprocess` gives it; None where there is none.
        lines: the end of its log.
        vitals: what it last told of its memory.
        kernel: whether the kernel has ended a process for want of memory since then; None: it does not tell.
    """
    if any(map(tells_of_exhaustion, lines)):
        return True
    if code is None or code == 0 or code & 0xFFFFFFFF in _WINDOWS:
        return code is not None and code & 0xFFFFFFFF in _WINDOWS_MEMORY
    signalled = _KILL if _was_killed(code, lines) else _signal(code)
    if signalled not in (None, _KILL):
        return False
    if kernel:
        return True
    scarce = None if vitals is None else vitals.scarce
    if signalled is None:
        return kernel is None and scarce is True and not any(map(_LAST_WORDS.search, lines))
    # Also against the kernel's word: some systems leave such ends to a service, whose SIGKILL is not counted
    # (systemd-oomd).
    return kernel is None if scarce is None else scarce


def explain_exit(
    code: int, lines: Sequence[str], log: str | None, vitals: Vitals | None = None, pid: int | None = None
) -> JobError:
    """Why a worker that nobody asked to stop is gone.

    Args:
        code: as `subprocess` gives it: minus the signal on POSIX, the status on Windows.
        lines: the end of its log.
        vitals: what it last told of its memory, and pid: of its process; None when it told nothing.
    """
    what = f"The program that does the work {describe_exit(code)}."
    missing = next((found[1] for line in reversed(lines) if (found := _MISSING.search(line))), None)
    kernel = kernel_ended_one(vitals, pid)
    if memory_ran_out(code, lines, vitals, kernel):
        meaning = f"Most likely the memory of this computer or of its GPU ran out{_reasons(vitals, kernel)}."
        meaning += " The job is lost."
        remedy = _MEMORY_REMEDY
    elif missing is not None:
        meaning = f"The Python it runs in lacks the package {missing}."
        remedy = "Install this program's requirements into that Python, or choose another one."
    elif _signal(code) == _TERM or _was_killed(code, lines):
        meaning, remedy = "Another program ended it; the job is lost.", "Start the job again."
    else:
        meaning = "It crashed; the job is lost, everything else is unchanged."
        remedy = "Start the job again. If it happens again, report it with the log file."
    return JobError(what, meaning, remedy, log, lines)


def _was_killed(code: int, lines: Sequence[str]) -> bool:
    """By SIGKILL, as the exit code tells, or a shell that was between, in its last word."""
    return _signal(code) == _KILL or (_signal(code) is None and bool(lines) and bool(_KILLED.search(lines[-1])))


def _reasons(vitals: Vitals | None, kernel: bool | None) -> str:
    """What speaks for it, besides how the process ended."""
    reasons = ["the system ended a program for want of it at that moment"] if kernel else []
    if vitals is not None and vitals.in_words():
        reasons.append(f"{vitals.in_words()} when it last told")
    return f" ({'; '.join(reasons)})" if reasons else ""


def explain_error(error: BaseException, log: str | None) -> JobError:
    """What a job raised; folders of paths in foreign messages are left out, the log has them."""
    if isinstance(error, JobError):
        return error
    if isinstance(error, APFormerError):
        return JobError(error.what, error.meaning, error.remedy, log)
    if ran_out(error):
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
    try:
        told = str(getattr(error, "strerror", None) or error).strip().partition("\n")[0][:200]
    except Exception:  # noqa: BLE001  a foreign error whose text cannot be made
        told = "it does not say what"
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
