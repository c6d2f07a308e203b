"""What is asked before memory is taken."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from apformer import memory
from apformer.errors import InputError
from apformer.memory import free_system_memory, group_folders, in_words, memory_limit, ran_out, require_memory


def test_an_image_that_fits_is_let_through_and_one_of_terabytes_is_refused_with_both_sizes() -> None:
    require_memory("small.nrrd", 1000)

    with pytest.raises(InputError) as refused:
        require_memory("huge.nrrd", 3 * 10**12)

    assert refused.value.what.startswith("huge.nrrd would need 3 TB of memory; ")
    assert "nothing was read" in refused.value.meaning


def test_a_host_can_allow_less_than_is_free_and_the_limit_ends_with_the_block() -> None:
    with memory_limit(10_000):
        require_memory("a.nrrd", 10_000)
        with pytest.raises(InputError, match=r"needs? 10 kB|would need 10 kB of memory; 10 kB can be used"):
            require_memory("b.nrrd", 10_001)
    require_memory("b.nrrd", 10_001)


def test_a_count_that_no_float_can_hold_is_refused_in_words_too() -> None:
    with pytest.raises(InputError, match="more than a million PB"):
        require_memory("absurd.nrrd", 2**255)


def test_sizes_are_written_for_people() -> None:
    assert [in_words(size) for size in (12, 1500, 2.5e6, 3e9, 4e15)] == ["12 bytes", "1.5 kB", "2.5 MB", "3 GB", "4 PB"]


def test_the_limit_of_a_control_group_counts_and_its_page_cache_does_not(tmp_path: Path) -> None:
    for name, text in (
        ("memory.max", "1000"),
        ("memory.current", "900"),
        ("memory.stat", "anon 5\ninactive_file 300\n"),
    ):
        (tmp_path / name).write_text(text)

    assert memory._free_in_group(tmp_path) == [400]

    (tmp_path / "memory.max").write_text("max")
    assert memory._free_in_group(tmp_path)[0] > 10**12
    assert free_system_memory() > 0


def test_the_groups_around_a_process_are_found_in_both_versions_and_from_within_a_container(tmp_path: Path) -> None:
    member = tmp_path / "cgroup"
    member.write_text("4:memory:/user/a\n3:cpu:/x\n0::/slice/b\nnonsense\n")
    found = [path.relative_to(tmp_path).as_posix() for path in group_folders(tmp_path, member)]
    assert found == [".", "memory", "memory/user", "memory/user/a", "slice", "slice/b"]
    assert len(group_folders(tmp_path, tmp_path / "none")) == 2

    inner = tmp_path / "memory" / "user" / "a"
    inner.mkdir(parents=True)
    for name, text in (("limit_in_bytes", "1000"), ("usage_in_bytes", "900"), ("stat", "total_inactive_file 50\n")):
        (inner / f"memory.{name}").write_text(text)
    assert memory._free_in_group(tmp_path, member) == [150]


class ArrayMemoryError(MemoryError):
    """As NumPy's: what it says is computed, and here cannot be."""

    def __str__(self) -> str:
        raise ValueError


def caused_by(cause: Exception) -> Exception:
    error = ValueError("the case cannot be read")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ArrayMemoryError(),
        type("OutOfMemoryError", (RuntimeError,), {})("simulated"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tri"
        ),
        RuntimeError("[enforce fail at alloc_cpu.cpp:66] . DefaultCPUAllocator: not enough memory: you tried to alloc"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError(
            "MPS backend out of memory (MPS allocated: 8.97 GB, other allocations: 84.96 MB, max allowed: 9 GB)"
        ),
        RuntimeError("std::bad_alloc"),
        RuntimeError("bad allocation"),
        RuntimeError("Exception thrown in SimpleITK ImageFileReader_Execute: Failed to allocate memory for image."),
        ValueError("Unable to allocate 7.28 TiB for an array with shape (1000000000000,) and data type float64"),
        OSError(errno.ENOMEM, "Nicht genügend Hauptspeicher verfügbar"),
        caused_by(OSError(errno.ENOMEM, "Cannot allocate memory")),
    ],
    ids=lambda error: f"{type(error).__name__} {error!r:.60}" if not isinstance(error, ArrayMemoryError) else "array",
)
def test_memory_that_ran_out_is_one_thing_whoever_says_it(error: Exception) -> None:
    assert ran_out(error)


@pytest.mark.parametrize(
    "error",
    [
        None,
        ValueError("shapes do not match"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/out of memory.nii"),
        OSError(errno.ENOSPC, "No space left on device"),
        ImportError("libgomp.so.1: cannot allocate memory in static TLS block"),
        caused_by(ValueError("7")),
    ],
)
def test_other_errors_are_not_taken_for_it(error: Exception | None) -> None:
    assert not ran_out(error)


def test_windows_numbers_count_whatever_their_texts_say() -> None:
    error = OSError(errno.EINVAL, "Die Auslagerungsdatei ist zu klein")
    assert not ran_out(error)
    error.winerror = 1455
    assert ran_out(error)
