"""What is asked before memory is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from apformer import memory
from apformer.errors import InputError
from apformer.memory import free_system_memory, in_words, memory_limit, require_memory


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
