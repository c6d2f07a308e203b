"""Why a worker died: what it said, what the system says, and what it last told of its memory."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from apformer.jobs import Event, JobClient, JobError, exits
from apformer.jobs.exits import describe_exit, explain_error, explain_exit, memory_ran_out
from apformer.jobs.vitals import PLENTY, SCARCE, Vitals, ended_by_kernel, kernel_ended_one
from job_samples import LONG

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and shell scripts are POSIX's")
counted = pytest.mark.skipif(not ended_by_kernel(), reason="this system does not count what it ended")
NEARLY_GONE, ENOUGH, UNCLEAR = Vitals(8 << 30, SCARCE // 4), Vitals(1 << 30, 2 * PLENTY), Vitals(1 << 30, SCARCE)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "SIGKILL"),
        (137, "SIGKILL"),
        (-11, "SIGSEGV"),
        (134, "SIGABRT"),
        (3, "status 3"),
        (0xC0000005, "access violation"),
        (0xC0000005 - (1 << 32), "access violation"),
        (0xC0000409, "0xC0000409"),
    ],
)
@posix
def test_an_exit_code_is_told_in_words(code: int, words: str) -> None:
    assert words in describe_exit(code)


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        (-9, []),
        (137, []),
        (0xC0000017, []),
        (0xC000012D, []),
        (1, ["MemoryError"]),
        (1, ["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"]),
        (1, ["RuntimeError: [enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate"]),
        (1, ["RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"]),
        (1, ["Killed"]),
        (1, ["/usr/bin/launch: line 3:  4711 Killed                  python"]),
        (-6, ["terminate called after throwing an instance of 'std::bad_alloc'"]),
    ],
)
def test_exhausted_memory_is_recognised_with_a_remedy(code: int, lines: list[str]) -> None:
    error = explain_exit(code, lines, "/logs/a.log")
    assert "memory" in error.meaning and "region of interest" in error.remedy
    assert error.log == "/logs/a.log" and list(error.last_lines) == lines


@pytest.mark.parametrize(
    ("code", "lines"), [(-11, ["Fatal Python error"]), (1, ["ValueError: 7"]), (0, []), (-15, []), (1, []), (255, [])]
)
def test_other_ends_are_not_blamed_on_memory(code: int, lines: list[str]) -> None:
    assert not memory_ran_out(code, lines)
    error = explain_exit(code, lines, None)
    assert "memory" not in error.meaning and error.remedy


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("cannot open /home/anna/patients/Müller/scan.nii: bad header"),
        RuntimeError(r"cannot open C:\Users\anna\patients\scan.nii"),
        FileNotFoundError(2, "No such file or directory", "/home/anna/patients/scan.nii"),
    ],
)
def test_an_unexpected_error_is_told_without_the_folders_in_it(error: Exception) -> None:
    told = explain_error(error, "/logs/a.log")
    assert type(error).__name__ in told.what
    assert "anna" not in told.what and "patients" not in told.what
    assert told.log == "/logs/a.log"


@pytest.mark.parametrize(
    ("code", "lines", "vitals", "kernel", "expected"),
    [
        (1, [], None, True, True),  # the signal is hidden, the kernel has counted
        (1, [], NEARLY_GONE, None, True),  # of a system that does not count
        (1, ["begun"], NEARLY_GONE, None, True),
        (-9, [], NEARLY_GONE, False, True),  # by a service in user space
        (137, [], UNCLEAR, None, True),
        (-9, [], None, False, False),
        (-9, [], ENOUGH, None, False),
        (-9, [], ENOUGH, False, False),
        (1, [], ENOUGH, None, False),
        (1, [], UNCLEAR, None, False),
        (1, [], NEARLY_GONE, False, False),
        (1, ["Traceback (most recent call last):", "KeyError: 7"], NEARLY_GONE, None, False),
        (-11, [], NEARLY_GONE, True, False),  # it crashed, whatever else the system ended
        (0xC0000005, [], NEARLY_GONE, None, False),
        (0, [], NEARLY_GONE, True, False),
    ],
)
def test_an_end_without_a_word_is_put_down_to_memory_only_when_the_evidence_is_for_it(
    code: int, lines: list[str], vitals: Vitals | None, kernel: bool | None, expected: bool
) -> None:
    assert memory_ran_out(code, lines, vitals, kernel) is expected


def test_the_user_is_told_what_speaks_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "kernel_ended_one", lambda vitals, pid: True)
    told = explain_exit(1, [], None, Vitals(7_100_000_000, 210_000_000), 5)
    assert told.what == "The program that does the work ended with status 1."
    assert told.meaning == (
        "Most likely the memory of this computer or of its GPU ran out (the system ended a program for want of it at "
        "that moment; it held 7.1 GB and 210 MB were free when it last told). The job is lost."
    )


@counted
def test_the_kernels_counts_are_compared_with_those_that_the_worker_told() -> None:
    counts = ended_by_kernel()
    assert kernel_ended_one(Vitals(ended=counts), None) is False
    assert kernel_ended_one(Vitals(ended={name: count - 1 for name, count in counts.items()}), None) is True
    assert kernel_ended_one(Vitals(ended={"elsewhere": 3}), None) is None
    assert kernel_ended_one(None, None) is None


def test_vitals_survive_the_wire_and_wrong_ones_are_none() -> None:
    vitals = Vitals.now()
    event = Event.parse(Event("memory", None, vitals.as_data()).encode())
    assert event is not None and Vitals.from_data(event.data) == vitals
    assert vitals.used_bytes is not None and vitals.used_bytes > 1_000_000
    assert Vitals.from_data([1]) is None
    assert Vitals.from_data({"used_bytes": "much", "ended": {"a": -1, "b": 2}}) == Vitals(None, None, {"b": 2}, None)


@pytest.fixture
def launcher(tmp_path: Path) -> Path:
    """Starts Python and hides the signal that ends it, as PythonSlicer does."""
    path = tmp_path / "PythonSlicer"
    path.write_text(f'#!/bin/sh\n"{sys.executable}" "$@" 2>/dev/null\n[ $? = 0 ] || exit 1\n')
    path.chmod(0o755)
    return path


def killed_behind(launcher: Path, logs: Path) -> JobError:
    """What is told of a worker behind `launcher` that is ended by SIGKILL while it works."""
    with JobClient(logs, python=launcher) as client:
        job = client.submit("segment", {"image": "none.nii", "model": "none", "outputs": {"labels": "none.npy"}})
        end = time.monotonic() + LONG
        while client.state(job).status == "sent":
            assert time.monotonic() < end
            time.sleep(0.01)
        assert client._talk.pid is not None and client._worker is not None
        assert client._talk.pid != client._worker._process.pid
        os.kill(client._talk.pid, signal.SIGKILL)
        with pytest.raises(JobError) as caught:
            client.wait(job, LONG)
    return caught.value


@posix
@counted
def test_a_kill_that_a_launcher_hides_is_put_down_to_memory_when_the_kernel_counted_it_and_else_not(
    launcher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = killed_behind(launcher, tmp_path / "logs")
    assert "status 1" in other.what and "memory" not in other.meaning
    counts: dict[str, Any] = ended_by_kernel()
    monkeypatch.setattr("apformer.jobs.vitals.ended_by_kernel", lambda: {name: n + 1 for name, n in counts.items()})
    memory = killed_behind(launcher, tmp_path / "logs")
    assert "status 1" in memory.what and "Most likely the memory" in memory.meaning
    assert "it held" in memory.meaning and "region of interest" in memory.remedy
