"""Versions of a model: all are kept, one is active, one step leads back; nothing else is ever taken instead."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from apformer.bundles import ModelLibrary
from apformer.errors import BundleError
from bundle_samples import save_sample
from version_samples import add_next, add_versions, copier, copy_as, damage, folder_of, record_of, versions_of


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


def zip_of(library: ModelLibrary, source: Path, folder: Path, name: str, version: str, **metadata: object) -> Path:
    """An exported model that is not in the library."""
    copied = copy_as(source, folder / f"{name} {version}" / name, name, version, **metadata)
    return library.export_zip(copied, folder / f"{name} {version}.zip")


def test_a_trained_version_is_used_once_it_is_adopted(library: ModelLibrary, source: Path):
    added = library.add_version(copier(source, "liver", "1.2.0"))
    assert added.directory == folder_of(library, "liver", "1.2.0")
    assert library.find("liver").version == "1.1.0"
    assert library.find("liver@1.2.0") == added
    assert library.activate("liver", "1.2.0", "better on all labels") == added
    assert library.find("liver") == added
    assert library.find("liver@1.1.0").directory == library.roots[1] / "liver"
    (entry,) = library.list()
    assert (entry.version, entry.origin, entry.versions, entry.read_only) == ("1.2.0", "trained", 2, False)
    change = library.changes("liver")[-1]
    assert (change.what, change.before, change.to, change.why) == ("activated", None, "1.2.0", "better on all labels")
    assert not [path for path in library.user_root.rglob("*") if ".new-" in path.name or path.name == ".lock"]


def test_the_directory_of_a_reference_is_that_of_what_is_found(library: ModelLibrary, add: Callable[..., None]):
    add("liver", "1.2.0", adopt=True)
    for reference in ("liver", "liver@1.1.0", "liver@1.2.0", "liver@bundled"):
        assert library.directory(reference) == library.find(reference).directory
    assert library.directory("liver@3.0.0") is library.directory("absent") is library.directory("a/b@1.0.0") is None


def test_history_tells_of_each_version_lowest_first(library: ModelLibrary, source: Path):
    metrics = {"labels": {"Liver": {"mean_dice": 0.91, "note": "x"}}, "cases": 3}
    described = {"parent_version": "liver 1.1.0", "metrics": metrics, "training": {"date": "2026-02-03"}}
    library.add_version(copier(source, "liver", "1.10.0", **described))
    library.add_version(copier(source, "liver", "1.9.0"))
    library.activate("liver", "1.10.0")
    damage(folder_of(library, "liver", "1.9.0"))
    first, middle, last = library.history("liver")
    assert [first.version, middle.version, last.version] == ["1.1.0", "1.9.0", "1.10.0"]
    assert [first.origin, middle.origin, last.origin] == ["bundled", "trained", "trained"]
    assert [first.active, middle.active, last.active] == [False, False, True]
    assert first.problem is None and "checksum" in (middle.problem or "") and middle.bundle is None
    assert (last.parent_version, last.date, last.metrics) == (
        "liver 1.1.0",
        "2026-02-03",
        {"Liver": {"mean_dice": 0.91}},
    )
    assert first.date is None and first.metrics == {}


def test_the_date_of_a_version_that_does_not_tell_is_when_it_was_added(library: ModelLibrary, add: Callable[..., None]):
    add("mine", "1.0.0")
    assert library.history("mine")[0].date == library.changes("mine")[0].when


def test_rolling_back_goes_one_step_at_a_time_to_what_was_there_first(library: ModelLibrary, add: Callable[..., None]):
    add("liver", "1.2.0", "1.3.0", adopt=True)
    assert library.rollback("liver", "worse on small lesions").version == "1.2.0"
    assert library.changes("liver")[-1].why == "worse on small lesions"
    assert library.rollback("liver").version == library.find("liver").version == "1.1.0"
    with pytest.raises(BundleError, match="no earlier liver"):
        library.rollback("liver")
    assert library.find("liver").version == "1.1.0"
    library.activate("liver", "1.3.0")  # a version that was rolled back is still there
    assert library.rollback("liver").version == "1.1.0"


def test_activating_the_active_version_again_changes_nothing(library: ModelLibrary, add: Callable[..., None]):
    add("liver", "1.2.0", adopt=True)
    before = record_of(library, "liver").read_bytes()
    library.activate("liver", "1.2.0")
    assert record_of(library, "liver").read_bytes() == before


def test_the_first_version_of_a_new_name_has_nothing_before_it(library: ModelLibrary, add: Callable[..., None]):
    add("mine", "1.0.0", adopt=True)
    with pytest.raises(BundleError, match="no earlier mine"):
        library.rollback("mine")
    assert library.find("mine").version == "1.0.0"


def test_the_bundled_model_is_activated_again_by_its_number_or_by_that_word(
    library: ModelLibrary, add: Callable[..., None]
):
    add("liver", "1.2.0", adopt=True)
    assert library.activate("liver", "1.1.0").version == library.find("liver").version == "1.1.0"
    assert library.rollback("liver").version == "1.2.0"
    assert library.activate("liver", "bundled").version == "1.1.0"


def test_activating_a_model_that_has_no_versions_writes_nothing(library: ModelLibrary):
    assert library.activate("liver", "1.1.0").version == "1.1.0"
    assert list(library.user_root.iterdir()) == []


@pytest.mark.parametrize("name", ["absent", "../shipped/liver", ""])
def test_a_name_that_is_not_there_lists_those_that_are(library: ModelLibrary, name: str):
    for ask in (library.history, library.changes, library.rollback, lambda asked: library.activate(asked, "1.0.0")):
        with pytest.raises(BundleError, match=r"no model.*Choose one of: liver\."):
            ask(name)
        with pytest.raises(BundleError, match="names one version of liver"):
            ask("liver@1.1.0")


@pytest.mark.parametrize("version", ["1.2.0", "imported", "newest"])
def test_a_version_that_is_not_there_lists_those_that_are(library: ModelLibrary, version: str):
    for ask in (library.find, lambda asked: library.activate(*asked.split("@")), library.remove):
        if (ask, version) == (library.remove, "newest"):
            continue
        with pytest.raises(BundleError, match=rf"no version {version} of liver.*liver@1\.1\.0 \(bundled\)"):
            ask(f"liver@{version}")


def test_a_new_name_that_is_not_adopted_is_reached_by_its_version_only(library: ModelLibrary, add: Callable[..., None]):
    add("mine", "1.0.0")
    with pytest.raises(BundleError, match=r"No version of mine is active.*models activate mine 1.0.0"):
        library.find("mine")
    assert [entry.name for entry in library.list()] == ["liver"]
    assert library.inactive() == ["mine"]
    assert library.find("mine@1.0.0").version == "1.0.0"
    assert [(entry.version, entry.active) for entry in library.history("mine")] == [("1.0.0", False)]
    library.activate("mine", "1.0.0")
    assert library.find("mine").version == "1.0.0" and library.inactive() == []


def test_numbers_rise_above_every_version_of_the_name(
    library: ModelLibrary, source: Path, tmp_path: Path, add: Callable[..., None]
):
    assert library.next_version("mine", library.find("liver")) == "1.0.0"
    assert library.next_version("liver", library.find("liver")) == "1.2.0"
    add("liver", "1.9.3", "1.10.0-rc1")
    assert library.next_version("liver") == "1.11.0"
    library.remove("liver@1.10.0-rc1")
    assert library.next_version("liver") == "1.11.0"  # a number that was used is not used again
    copy_as(source, library.user_root / "liver", "liver", "2.4.0")
    assert library.next_version("liver") == "2.5.0"
    outside = ModelLibrary([copy_as(source, tmp_path / "other" / "liver", "liver", "7.0.0").parent]).find("liver")
    assert library.next_version("liver", outside) == "7.1.0"
    with pytest.raises(BundleError, match="cannot be the name"):
        library.next_version("../liver")


@pytest.mark.parametrize("version", ["1.1.0", "1.2.0-A", "1.2.0-a", "1.3.0-x."])
def test_a_version_that_exists_or_cannot_be_a_folder_is_refused(
    library: ModelLibrary, source: Path, add: Callable[..., None], version: str
):
    add("liver", "1.2.0-A")
    with pytest.raises(BundleError, match=r"already|ends with a dot"):
        library.add_version(copier(source, "liver", version, description="another one"))
    assert versions_of(library, "liver") == ["1.1.0", "1.2.0-A"]
    assert library.find("liver@1.2.0-A").description != "another one"


def test_a_writer_that_fails_or_writes_nonsense_adds_nothing(library: ModelLibrary, source: Path):
    def stop(folder: Path) -> None:
        copy_as(source, folder, "liver", "1.2.0")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.add_version(stop)
    with pytest.raises(BundleError, match="checksum"):
        library.add_version(lambda folder: damage(copy_as(source, folder, "liver", "1.2.0")))
    with pytest.raises(BundleError, match="no model"):
        library.add_version(lambda folder: None)
    assert versions_of(library, "liver") == ["1.1.0"]
    assert not [path for path in library.user_root.rglob("*") if path.is_file()]


def test_two_writers_at_once_never_take_the_same_number(library: ModelLibrary, source: Path):
    with ThreadPoolExecutor(3) as pool:
        told = list(pool.map(lambda _: add_next(library, source, "liver"), range(6)))
    assert sorted(told) == ["1.2.0", "1.3.0", "1.4.0", "1.5.0", "1.6.0", "1.7.0"]
    assert versions_of(library, "liver") == ["1.1.0", *sorted(told)]


def test_removing_a_version_spares_the_active_and_the_bundled_one(library: ModelLibrary, add: Callable[..., None]):
    add("liver", "1.2.0", "1.3.0", "1.4.0", adopt=True)
    for version, reason in (("1.4.0", "active version"), ("1.1.0", "came with this program")):
        with pytest.raises(BundleError, match=reason):
            library.remove(f"liver@{version}")
    library.remove("liver@1.3.0")
    assert versions_of(library, "liver") == ["1.1.0", "1.2.0", "1.4.0"]
    assert library.rollback("liver").version == "1.2.0"  # over the removed one, which is in the log


def test_removing_a_model_with_versions_must_be_asked_for_twice(
    library: ModelLibrary, source: Path, add: Callable[..., None]
):
    add("liver", "1.2.0", adopt=True)
    copy_as(source, library.user_root / "liver", "liver", "1.1.5")
    with pytest.raises(BundleError, match=r"versions that are kept: 1\.2\.0.*--all-versions"):
        library.remove("liver")
    assert versions_of(library, "liver") == ["1.1.0", "1.1.5", "1.2.0"]
    library.remove("liver", all_versions=True)
    assert list(library.user_root.iterdir()) == []
    assert library.find("liver").version == "1.1.0"
    with pytest.raises(BundleError, match="came with this program"):
        library.remove("liver", all_versions=True)


def test_an_imported_model_below_trained_versions_can_be_removed_alone(
    library: ModelLibrary, source: Path, add: Callable[..., None]
):
    copy_as(source, library.user_root / "liver", "liver", "2.0.0")
    with pytest.raises(BundleError, match="active version"):
        library.remove("liver@2.0.0")
    add("liver", "2.1.0", adopt=True)
    library.remove("liver@imported")
    assert versions_of(library, "liver") == ["1.1.0", "2.1.0"]
    with pytest.raises(BundleError, match="no earlier"):  # the bundled model was not what was active before
        library.rollback("liver")
    assert library.activate("liver", "bundled").version == "1.1.0"


def test_a_bundled_model_that_an_imported_one_hides_is_found_but_not_activated(library: ModelLibrary, source: Path):
    copy_as(source, library.user_root / "liver", "liver", "2.0.0")
    assert library.find("liver").version == "2.0.0"
    assert library.find("liver@1.1.0") == library.find("liver@bundled")
    with pytest.raises(BundleError, match=r"hides.*models remove liver@imported"):
        library.activate("liver", "1.1.0")


def test_a_program_update_that_brings_a_number_twice_leaves_both_within_reach(
    library: ModelLibrary, source: Path, add: Callable[..., None]
):
    add("liver", "1.2.0", adopt=True)
    shutil.rmtree(library.roots[1] / "liver")
    copy_as(source, library.roots[1] / "liver", "liver", "1.2.0", description="from the program")
    references = [(entry.reference, entry.active) for entry in library.history("liver")]
    assert references == [("liver@bundled", False), ("liver@1.2.0", True)]
    assert library.find("liver@1.2.0").description != library.find("liver@bundled").description
    assert library.activate("liver", "bundled").description == library.find("liver").description == "from the program"
    assert library.activate("liver", "1.2.0").description != "from the program"


def test_importing_beside_trained_versions_adds_one_and_loses_none(
    library: ModelLibrary, source: Path, tmp_path: Path, add: Callable[..., None]
):
    add("liver", "1.2.0", adopt=True)
    path = zip_of(library, source, tmp_path, "liver", "3.0.0")
    with pytest.raises(BundleError, match="installed already"):
        library.import_zip(path)
    imported = library.import_zip(path, replace=True)
    assert imported == library.find("liver") == library.find("liver@3.0.0")
    assert [(entry.version, entry.origin) for entry in library.history("liver")] == [
        ("1.1.0", "bundled"),
        ("1.2.0", "trained"),
        ("3.0.0", "imported"),
    ]
    assert library.rollback("liver").version == "1.2.0"
    assert library.import_zip(path, replace=True).version == library.find("liver").version == "3.0.0"  # the very same
    other = zip_of(library, source, tmp_path / "other", "liver", "1.2.0", description="another")
    with pytest.raises(BundleError, match=r"liver 1\.2\.0 already"):
        library.import_zip(other, replace=True)


def test_exporting_writes_the_active_or_the_exact_version(
    library: ModelLibrary, tmp_path: Path, add: Callable[..., None]
):
    add("liver", "1.2.0", adopt=True)
    (tmp_path / "out").mkdir()
    assert library.export_zip("liver", tmp_path / "out").name == "liver-1.2.0.zip"
    assert library.export_zip("liver@1.1.0", tmp_path / "out").name == "liver-1.1.0.zip"
    elsewhere = ModelLibrary([tmp_path / "elsewhere"])
    assert elsewhere.import_zip(tmp_path / "out" / "liver-1.2.0.zip").checksum == library.find("liver").checksum
