"""The disk becomes full at any moment of a fine-tuning: that is said, nothing is lost, and with room it goes on.

Checkpoints and the version itself are in `test_finetuning_crashes`; here is all else that is written.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from apformer.bundles import Bundle, ModelLibrary
from apformer.datasets import SiteDataset
from apformer.errors import OutputError

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.finetuning import Request, finetune, outcome, session
from apformer.finetuning.folder import TRAININGS
from apformer.training.cases import PreparedCases
from crash_samples import TINY, Stopped, Stopper, plain_pictures, plan_of
from dataset_samples import assert_sound
from finetune_samples import a_base, a_request, a_site


@pytest.fixture
def library(tmp_path: Path) -> ModelLibrary:
    """Of one model, ball 1.0.0, which is active."""
    library = ModelLibrary([tmp_path / "models"])
    a_base(library, **TINY)
    return library


@contextmanager
def full_disk() -> Iterator[None]:
    """What is written does not get there: the system says so when it is to be kept, as with delayed allocation."""

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        yield


def fails(request: Request, library: ModelLibrary, moment: str) -> OutputError:
    """The error of a fine-tuning whose disk is full from when `moment` is told."""
    filled = ExitStack()

    def listen(event: dict[str, Any]) -> None:
        if moment in event.get("message", event["event"]):
            filled.enter_context(full_disk())

    with filled, pytest.raises(OutputError) as caught:
        finetune(request, library=library, on_event=listen)
    return caught.value


def assert_nothing_is_lost(site: SiteDataset, library: ModelLibrary, before: Bundle) -> None:
    assert_sound(SiteDataset.open(site.root))
    assert library.find("ball").checksum == before.checksum, "what was active is active"
    half_written = [path for root in (site.root, *library.roots) for path in root.rglob(".*-*") if path.is_file()]
    assert half_written == []


@pytest.mark.parametrize(
    "moment", ["checking the data set", "Training on", "measuring ball", "preparing the cases", "epoch"]
)
def test_a_disk_that_is_full_is_told_and_with_room_the_same_training_goes_on(
    tmp_path: Path, library: ModelLibrary, moment: str
) -> None:
    site, before = a_site(tmp_path / "site"), library.find("ball")
    with plain_pictures():
        error = fails(a_request(site, name="ball"), library, moment)
        assert "No space left" in error.what and ("space" in error.remedy or "room" in error.remedy)
        assert_nothing_is_lost(site, library, before)
        assert [row.version for row in library.history("ball")] == ["1.0.0"]
        resumes = plan_of(site, "ball").exists()
        assert resumes is (moment != "checking the data set"), "before it began there is nothing to go on with"
        done = finetune(a_request(site, name="ball", resume=resumes), library=library)
    assert done.bundle.version == "1.1.0" and len(done.summary["after"]["cases"]) == 2


def test_a_picture_that_finds_no_room_stops_it_before_the_version_is_written(
    tmp_path: Path, library: ModelLibrary
) -> None:
    site, before = a_site(tmp_path / "site"), library.find("ball")
    error = fails(a_request(site, name="ball"), library, "drawing the worst cases")
    assert "worst-1.png" in error.what and "No space left" in error.what and "space" in error.remedy
    assert_nothing_is_lost(site, library, before)
    stopper = Stopper()
    done = finetune(a_request(site, name="ball", resume=True), library=library, on_event=stopper)
    assert done.bundle.version == "1.1.0"
    assert [event for event in stopper.told if event["event"] == "epoch"] == [], "nothing is trained again"


def test_a_disk_that_becomes_full_while_cases_are_prepared_beside_the_training_ends_it(
    tmp_path: Path, library: ModelLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock, the first four cases are prepared before the training and the others meanwhile, by a thread."""
    site, before, store, stored = a_site(tmp_path / "site"), library.find("ball"), PreparedCases._store, []

    def limited(self: PreparedCases, case: Any) -> None:
        stored.append(case.name)
        if len(stored) <= 2 + session.FIRST_CASES:  # those who validate, and the first who train
            return store(self, case)
        with full_disk():
            return store(self, case)

    request = a_request(site, name="ball", steps=None, seconds=60.0)
    with plain_pictures():
        with monkeypatch.context() as patch, pytest.raises(OutputError, match="No space left") as caught:
            patch.setattr(PreparedCases, "_store", limited)
            finetune(request, library=library)
        assert "prepared" in caught.value.what and "space" in caught.value.remedy
        assert_nothing_is_lost(site, library, before)
        stopper = Stopper("epoch")
        with pytest.raises(Stopped):
            resumed = a_request(site, name="ball", steps=None, seconds=60.0, resume=True)
            finetune(resumed, library=library, on_event=stopper, check=stopper.check)
    prepared = {path.name.split(".")[0] for path in (site.root / TRAININGS).rglob("*.label.npy")}
    assert len(prepared) == 8, "with room, all cases take part"


def test_a_report_that_finds_no_room_leaves_no_version_that_would_be_written_twice(
    tmp_path: Path, library: ModelLibrary
) -> None:
    site, before = a_site(tmp_path / "site"), library.find("ball")

    def no_room(*_unused: Any) -> None:
        raise OutputError("report.html could not be written.", "Nothing was saved there.", "Free some disk space.")

    with plain_pictures():
        with pytest.MonkeyPatch.context() as patch, pytest.raises(OutputError, match=r"report\.html"):
            patch.setattr(outcome, "write_page", no_room)
            finetune(a_request(site, name="ball", adopt="always"), library=library)
        assert_nothing_is_lost(site, library, before)
        finished = finetune(a_request(site, name="ball", adopt="always", resume=True), library=library)
    assert finished.report.exists() and finished.page.exists()
    assert [row.version for row in library.history("ball")] == ["1.0.0", "1.1.0"]
