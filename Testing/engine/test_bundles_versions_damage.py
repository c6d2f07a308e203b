"""What is damaged, missing, unsound or wrongly dated is told with its remedy; no other version is taken instead."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from apformer.bundles import ModelLibrary
from apformer.bundles.record import LONGEST_WHY, MOST_CHANGES
from apformer.errors import BundleError, OutputError
from bundle_samples import METADATA, edit_json, save_sample
from version_samples import add_versions, copier, copy_as, damage, folder_of, record_of, versions_of


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that the tests copy under other names and versions."""
    return save_sample(tmp_path_factory.mktemp("source") / "sample").directory


@pytest.fixture
def library(source: Path, tmp_path: Path) -> ModelLibrary:
    """The user's folder, not made yet, and one that came with the program and holds liver 1.1.0."""
    copy_as(source, tmp_path / "shipped" / "liver", "liver", "1.1.0")
    return ModelLibrary([tmp_path / "Modèles d'essai 模型", tmp_path / "shipped"])


@pytest.fixture
def add(library: ModelLibrary, source: Path) -> Callable[..., None]:
    """Adds versions to the library; with `adopt`, each is activated at once."""
    return partial(add_versions, library, source)


DAMAGED = {
    "empty": "",
    "cut off": '{"schema": 1, "active": "1.2',
    "no object": "[]",
    "no active": '{"schema": 1, "log": []}',
    "no version": '{"schema": 1, "active": "../../x", "log": []}',
    "a number": '{"schema": 1, "active": 1.2, "log": []}',
    "no log": '{"schema": 1, "active": "1.2.0", "log": {}}',
    "a bad change": '{"schema": 1, "active": "1.2.0", "log": [{"what": "activated"}]}',
    "too large": '{"schema": 1, "active": "1.2.0", "log": []' + " " * (1 << 20) + "}",
    "gone": None,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_record_is_told_and_mended_by_activating(
    library: ModelLibrary, source: Path, add: Callable[..., None], content: str | None
):
    add("liver", "1.2.0", adopt=True)
    path = record_of(library, "liver")
    path.unlink() if content is None else path.write_text(content, encoding="utf-8")
    for ask in (library.find, library.rollback):
        with pytest.raises(BundleError, match=r"cannot be told which version of liver.*models activate liver"):
            ask("liver")
    (entry,) = library.list()
    assert entry.bundle is None and "cannot be told" in (entry.problem or "")
    assert [entry.active for entry in library.history("liver")] == [False, False]
    assert library.find("liver@1.2.0").version == "1.2.0"
    library.add_version(copier(source, "liver", "1.3.0"))  # what was trained is kept all the same
    assert library.activate("liver", "1.2.0").version == library.find("liver").version == "1.2.0"
    assert versions_of(library, "liver") == ["1.1.0", "1.2.0", "1.3.0"]
    assert [change.what for change in library.changes("liver")] == ["repaired"]
    with pytest.raises(BundleError, match="no earlier"):
        library.rollback("liver")
    if content is not None:
        assert path.with_name("active.json.damaged").read_text(encoding="utf-8") == content


def test_the_record_of_a_newer_program_is_neither_guessed_nor_replaced(library: ModelLibrary, add: Callable[..., None]):
    add("liver", "1.2.0", adopt=True)
    path = record_of(library, "liver")
    path.write_text('{"schema": 2, "active": "1.2.0"}')
    for ask in (library.find, library.rollback, lambda name: library.activate(name, "1.2.0")):
        with pytest.raises(BundleError, match="Update this program"):
            ask("liver")
    assert path.read_text() == '{"schema": 2, "active": "1.2.0"}'


def test_an_active_version_that_is_missing_is_not_replaced_by_another(library: ModelLibrary, add: Callable[..., None]):
    add("liver", "1.2.0", "1.3.0", adopt=True)
    shutil.rmtree(folder_of(library, "liver", "1.3.0"))
    with pytest.raises(BundleError, match=r"Version 1.3.0 of liver is no longer.*models activate liver"):
        library.find("liver")
    assert "no longer" in (library.list()[0].problem or "")
    assert library.rollback("liver").version == library.find("liver").version == "1.2.0"


def test_a_name_whose_versions_are_all_missing_is_still_told_of(library: ModelLibrary, add: Callable[..., None]):
    add("mine", "1.0.0", adopt=True)
    shutil.rmtree(folder_of(library, "mine", "1.0.0"))
    with pytest.raises(BundleError, match="no longer"):
        library.find("mine")
    assert [entry.name for entry in library.list() if entry.problem] == ["mine"]


def test_an_unsound_active_version_is_not_replaced_by_another(library: ModelLibrary, add: Callable[..., None]):
    add("liver", "1.2.0", adopt=True)
    damage(folder_of(library, "liver", "1.2.0"))
    with pytest.raises(BundleError, match=r"differs from its checksum.*models rollback liver"):
        library.find("liver")
    assert "rollback" in (library.list()[0].problem or "")
    assert library.rollback("liver").version == "1.1.0"
    with pytest.raises(BundleError, match="checksum"):
        library.activate("liver", "1.2.0")
    assert library.find("liver").version == "1.1.0"


def test_rolling_back_to_an_unsound_or_missing_version_is_refused(library: ModelLibrary, add: Callable[..., None]):
    add("liver", "1.2.0", "1.3.0", adopt=True)
    damage(folder_of(library, "liver", "1.2.0"))
    with pytest.raises(BundleError, match="checksum"):
        library.rollback("liver")
    shutil.rmtree(folder_of(library, "liver", "1.2.0"))
    with pytest.raises(BundleError, match=r"Version 1.2.0 of liver is no longer"):
        library.rollback("liver")
    assert library.find("liver").version == "1.3.0"


def test_a_folder_that_holds_another_version_is_a_problem(
    library: ModelLibrary, source: Path, add: Callable[..., None]
):
    add("mine", "1.0.0", adopt=True)
    edit_json(folder_of(library, "mine", "1.0.0"), METADATA, lambda data: data.update(version="1.5.0"))
    with pytest.raises(BundleError, match=r"holds version 1\.5\.0"):
        library.find("mine")
    edit_json(folder_of(library, "mine", "1.0.0"), METADATA, lambda data: data.update(name="yours"))
    assert "holds the model yours" in (library.history("mine")[0].problem or "")


def test_wrong_clocks_change_neither_order_nor_roll_back(library: ModelLibrary, add: Callable[..., None]):
    add("liver", "1.2.0", "1.3.0", "1.4.0", adopt=True)
    path = record_of(library, "liver")
    data = json.loads(path.read_text(encoding="utf-8"))
    for year, change in enumerate(data["log"]):
        change["when"] = f"{2999 - year}-01-01T00:00:00+00:00"
    path.write_text(json.dumps(data), encoding="utf-8")
    for year, version in enumerate(("1.4.0", "1.3.0", "1.2.0")):
        os.utime(folder_of(library, "liver", version), (year * 1e8, year * 1e8))
    assert versions_of(library, "liver") == ["1.1.0", "1.2.0", "1.3.0", "1.4.0"]
    assert [library.rollback("liver").version for _ in range(3)] == ["1.3.0", "1.2.0", "1.1.0"]


def test_a_long_log_keeps_its_end_and_stays_readable(library: ModelLibrary, add: Callable[..., None]):
    add("liver", "1.2.0", "1.3.0", adopt=True)
    path = record_of(library, "liver")
    data = json.loads(path.read_text(encoding="utf-8"))
    step = {"when": "now", "what": "activated", "why": LONGEST_WHY * "\N{BRAIN}"}
    there, back = {**step, "from": "1.3.0", "to": "1.2.0"}, {**step, "from": "1.2.0", "to": "1.3.0"}
    data["log"] = [there, back] * (MOST_CHANGES // 2)
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    library.activate("liver", "1.1.0", MOST_CHANGES * "long\n")
    changes = library.changes("liver")
    assert len(changes) == MOST_CHANGES and changes[-1].to is None
    assert len(changes[-1].why) <= LONGEST_WHY and "\n" not in changes[-1].why
    assert library.rollback("liver").version == "1.3.0"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_active_version_as_it_was(
    library: ModelLibrary, add: Callable[..., None], monkeypatch: pytest.MonkeyPatch, step: str
):
    add("liver", "1.2.0", "1.3.0", adopt=True)
    before = record_of(library, "liver").read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, fail)
    for change in (lambda: library.activate("liver", "1.2.0"), lambda: library.rollback("liver")):
        with pytest.raises(OutputError, match="No space left"):
            change()
    if step == "fsync":
        with pytest.raises(OutputError, match="No space left"):
            add("liver", "1.4.0")
    monkeypatch.undo()
    assert record_of(library, "liver").read_bytes() == before
    assert versions_of(library, "liver") == ["1.1.0", "1.2.0", "1.3.0"]
