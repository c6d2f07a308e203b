"""Models as zip files and in the library: found, listed, imported, exported, removed; unsafe zips change nothing."""

from __future__ import annotations

import shutil
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from apformer.bundles import ModelLibrary, archive, bundled_models, user_models
from apformer.errors import BundleError, OutputError
from bundle_samples import METADATA, edit_json, save_sample


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, each in a folder of its own: shipped/builtin and source/mine; and source/mine as mine.zip."""
    folder = tmp_path_factory.mktemp("saved")
    save_sample(folder / "shipped/builtin", name="builtin")
    save_sample(folder / "source/mine", name="mine")
    ModelLibrary([folder / "source"]).export_zip("mine", folder / "mine.zip")
    return folder


@pytest.fixture
def library(saved: Path, tmp_path: Path) -> ModelLibrary:
    """The user's folder, not made yet, and one that came with the program and holds 'builtin'."""
    shutil.copytree(saved / "shipped", tmp_path / "shipped")
    return ModelLibrary([tmp_path / "user", tmp_path / "shipped"])


@pytest.fixture
def sample_zip(saved: Path, tmp_path: Path) -> Path:
    """An exported model 'mine' that is not installed."""
    return Path(shutil.copy(saved / "mine.zip", tmp_path))


def names(library: ModelLibrary) -> list[str]:
    return [entry.name for entry in library.list()]


def rewrite(source: Path, target: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """A copy of a zip with other files in it."""
    with zipfile.ZipFile(source) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    change(contents)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in contents.items():
            file.writestr(name, content)
    return target


def refuse(library: ModelLibrary, path: Path, reason: str) -> None:
    """Importing fails with this reason and leaves nothing in the user's folder or beside it."""
    with pytest.raises(BundleError, match=reason):
        library.import_zip(path)
    assert not library.user_root.exists() or list(library.user_root.iterdir()) == []
    assert not (library.user_root.parent / "evil.json").exists()


def test_an_exported_model_imports_as_the_same_model(library: ModelLibrary, sample_zip: Path, saved: Path):
    bundle = library.import_zip(sample_zip)
    assert bundle.directory == library.user_root / "mine"
    assert bundle.checksum == ModelLibrary([saved / "source"]).find("mine").checksum
    assert library.find("mine").build_network() is not None
    assert [path.name for path in library.user_root.iterdir()] == ["mine"]


def test_exporting_twice_gives_the_same_bytes(library: ModelLibrary, tmp_path: Path):
    one = library.export_zip("builtin", tmp_path / "one.zip")
    (tmp_path / "folder").mkdir()
    other = library.export_zip("builtin", tmp_path / "folder")
    assert other.name == "builtin-1.0.0.zip"
    assert one.read_bytes() == other.read_bytes()


def test_pictures_of_patients_stay_behind_unless_they_are_asked_for(tmp_path: Path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n of a patient")
    drawn = dict.fromkeys(("worst-1.png", "overlay.png", "curves.png"), picture)
    source = ModelLibrary([tmp_path / "source"])
    save_sample(tmp_path / "source/mine", name="mine", pictures=drawn)
    kept = {}
    for pictures in (False, True):
        zipped = source.export_zip("mine", tmp_path / f"{pictures}.zip", pictures=pictures)
        imported = ModelLibrary([tmp_path / f"{pictures}"]).import_zip(zipped)
        kept[pictures] = {path.name for path in (imported.directory / "docs").glob("*.png")}
        assert imported.build_network() is not None
        assert (imported.checksum == source.find("mine").checksum) is pictures
    assert kept == {False: {"curves.png"}, True: set(drawn)}


def test_a_model_altered_since_it_was_loaded_is_not_exported(library: ModelLibrary, tmp_path: Path):
    bundle = library.find("builtin")
    edit_json(bundle.directory, METADATA, lambda data: data.update(description="altered"))
    with pytest.raises(BundleError, match="changed after it was loaded"):
        archive.write_archive(bundle, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_exporting_to_a_folder_that_is_missing_is_refused(library: ModelLibrary, tmp_path: Path):
    with pytest.raises(OutputError, match="could not be written"):
        library.export_zip("builtin", tmp_path / "absent/one.zip")


def test_a_zip_without_a_top_folder_and_with_file_manager_litter_imports(
    library: ModelLibrary, sample_zip: Path, tmp_path: Path
):
    def flatten(contents: dict[str, bytes]) -> None:
        for name in list(contents):
            contents[name.removeprefix("mine/")] = contents.pop(name)
        contents["__MACOSX/._SHA256SUMS"] = contents["docs/.DS_Store"] = b"litter"

    assert library.import_zip(rewrite(sample_zip, tmp_path / "flat.zip", flatten)).name == "mine"


def test_importing_over_a_model_needs_replace(library: ModelLibrary, sample_zip: Path, tmp_path: Path):
    library.import_zip(sample_zip)
    newer = ModelLibrary([tmp_path / "newer"])
    save_sample(tmp_path / "newer/mine", name="mine", version="2.0.0")
    newer.export_zip("mine", tmp_path / "newer.zip")
    with pytest.raises(BundleError, match="installed already"):
        library.import_zip(tmp_path / "newer.zip")
    assert library.find("mine").version == "1.0.0"
    assert library.import_zip(tmp_path / "newer.zip", replace=True).version == "2.0.0"
    assert [path.name for path in library.user_root.iterdir()] == ["mine"]


def test_importing_a_model_that_would_hide_one_of_the_programs_needs_replace(library: ModelLibrary, tmp_path: Path):
    save_sample(tmp_path / "other/builtin", name="builtin", version="2.0.0")
    path = library.export_zip(tmp_path / "other/builtin", tmp_path / "b.zip")
    with pytest.raises(BundleError, match="installed already"):
        library.import_zip(path)
    library.import_zip(path, replace=True)
    assert library.find("builtin").version == "2.0.0"
    library.remove("builtin")
    assert library.find("builtin").version == "1.0.0"  # the program's own is still there


@pytest.mark.parametrize(
    "name",
    ["../evil.json", "mine/../../evil.json", "/evil.json", "mine/docs/../../../evil.json", "C:evil.json", "a\\..\\b"],
)
def test_paths_that_lead_out_of_the_zip_are_refused(library: ModelLibrary, sample_zip: Path, tmp_path: Path, name: str):
    refuse(library, rewrite(sample_zip, tmp_path / "x.zip", lambda c: c.update({name: b"{}"})), "unsafe path")


def test_a_link_in_a_zip_is_refused(library: ModelLibrary, sample_zip: Path):
    link = zipfile.ZipInfo("mine/docs/link.md")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(sample_zip, "a") as file:
        file.writestr(link, "/etc/passwd")
    refuse(library, sample_zip, "link or a device")


def test_a_zip_bomb_is_refused_by_its_ratio(library: ModelLibrary, sample_zip: Path, tmp_path: Path):
    bomb = rewrite(sample_zip, tmp_path / "x.zip", lambda c: c.update({"mine/docs/zeros.csv": bytes(3 << 20)}))
    refuse(library, bomb, "200 times")


def test_a_file_larger_than_its_kind_may_be_is_refused(library: ModelLibrary, sample_zip: Path, tmp_path: Path):
    noise = bytes(range(256)) * 8000  # 2 MB, deflates by less than 200
    big = rewrite(sample_zip, tmp_path / "x.zip", lambda c: c.update({"mine/docs/big.md": noise}))
    with zipfile.ZipFile(big, "w") as file:
        file.writestr("mine/docs/big.md", noise)
    refuse(library, big, "larger than")


def test_a_total_beyond_the_limit_is_refused(library: ModelLibrary, sample_zip: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "LARGEST_TOTAL_BYTES", 1000)
    refuse(library, sample_zip, "unpacks to more")


def test_a_size_that_lies_is_refused(library: ModelLibrary, sample_zip: Path):
    content = bytearray(sample_zip.read_bytes())
    place = content.rindex(b"mine/docs/README.md") - 46  # the entry in the zip's directory; its size is at 24
    assert content[place : place + 4] == b"PK\x01\x02"
    content[place + 24 : place + 28] = struct.pack("<I", 3)
    sample_zip.write_bytes(content)
    refuse(library, sample_zip, "not a complete zip|differs from its checksum|larger than")


def test_too_many_entries_are_refused(library: ModelLibrary, sample_zip: Path, tmp_path: Path):
    many = rewrite(sample_zip, tmp_path / "x.zip", lambda c: c.update({f"mine/d{n}/": b"" for n in range(300)}))
    refuse(library, many, "more than 256 entries")


def test_a_file_that_is_twice_in_a_zip_is_refused(library: ModelLibrary, sample_zip: Path):
    with warnings.catch_warnings(), zipfile.ZipFile(sample_zip, "a") as file:
        warnings.simplefilter("ignore")  # zipfile warns of the duplicate we want
        file.writestr("mine/docs/readme.md", "differs in case only")
    refuse(library, sample_zip, "twice")


@pytest.mark.parametrize("name", ["mine/models/model.pt", "mine/run.py", "other/configs/metadata.json", "mine/a/b.md"])
def test_files_that_no_model_has_are_refused_in_a_zip(
    library: ModelLibrary, sample_zip: Path, tmp_path: Path, name: str
):
    refuse(library, rewrite(sample_zip, tmp_path / "x.zip", lambda c: c.update({name: b"x"})), "may contain")


def test_an_altered_model_in_a_zip_is_refused(library: ModelLibrary, sample_zip: Path, tmp_path: Path):
    altered = rewrite(sample_zip, tmp_path / "x.zip", lambda c: c.update({"mine/docs/README.md": b"other"}))
    refuse(library, altered, "differs from its checksum")


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_a_cut_off_zip_is_refused(library: ModelLibrary, sample_zip: Path, keep: int):
    sample_zip.write_bytes(sample_zip.read_bytes()[:keep])
    refuse(library, sample_zip, "not a complete zip")


def test_an_empty_a_missing_and_no_zip_at_all_are_refused(library: ModelLibrary, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    refuse(library, tmp_path / "empty.zip", "contains no model")
    refuse(library, tmp_path / "absent.zip", "cannot be read")
    (tmp_path / "folder.zip").mkdir()
    refuse(library, tmp_path / "folder.zip", "cannot be read")


def test_an_encrypted_zip_is_refused(library: ModelLibrary, sample_zip: Path):
    content = bytearray(sample_zip.read_bytes())
    place = content.rindex(b"mine/docs/README.md") - 46
    content[place + 8] |= 1  # the flag in the zip's directory
    sample_zip.write_bytes(content)
    refuse(library, sample_zip, "encrypted")


def test_a_model_is_found_by_name_or_by_folder(library: ModelLibrary, tmp_path: Path):
    directory = save_sample(tmp_path / "elsewhere").directory
    assert library.find("builtin").name == "builtin"
    assert library.find(directory).directory == directory
    assert library.find(str(directory)).directory == directory


@pytest.mark.parametrize("name", ["absent", "", "../shipped/nothing", "a/b", "nul\0", "x" * 500])
def test_a_name_that_is_not_there_lists_those_that_are(library: ModelLibrary, name: str):
    with pytest.raises(BundleError, match="builtin"):
        library.find(name)


def test_a_broken_model_is_listed_with_its_reason_beside_the_sound_ones(library: ModelLibrary):
    save_sample(library.user_root / "broken", name="broken")
    (library.user_root / "broken" / METADATA).write_text("{}")
    (library.user_root / "empty").mkdir()
    entries = {entry.name: entry for entry in library.list()}
    assert list(entries) == ["broken", "builtin", "empty"]
    assert "differs from its checksum" in (entries["broken"].problem or "")
    assert "lacks the file" in (entries["empty"].problem or "")
    assert (entries["builtin"].problem, entries["builtin"].version) == (None, "1.0.0")
    assert (entries["builtin"].read_only, entries["broken"].read_only) == (True, False)


def test_a_broken_model_of_the_users_does_not_give_way_to_another_of_that_name(library: ModelLibrary):
    save_sample(library.user_root / "builtin", name="builtin")
    (library.user_root / "builtin" / METADATA).write_text("{}")
    with pytest.raises(BundleError, match="checksum"):
        library.find("builtin")


def test_a_folder_under_another_name_than_its_model_is_a_problem(library: ModelLibrary):
    save_sample(library.user_root / "renamed", name="original")
    problem = next(entry.problem for entry in library.list() if entry.name == "renamed")
    assert "Rename the folder to original" in (problem or "")


def test_models_being_written_are_not_listed(library: ModelLibrary):
    (library.user_root / ".mine.new-x1").mkdir(parents=True)
    assert names(library) == ["builtin"]


def test_listing_puts_back_a_model_that_a_crash_left_aside(library: ModelLibrary):
    save_sample(library.user_root / "mine", name="mine")
    (library.user_root / "mine").rename(library.user_root / ".mine.old-abc")
    assert names(library) == ["builtin", "mine"]


def test_removing_takes_sound_and_broken_models_of_the_user(library: ModelLibrary):
    for name in ("sound", "broken"):
        save_sample(library.user_root / name, name=name)
    edit_json(library.user_root / "broken", METADATA, lambda data: data.clear())
    library.remove("sound")
    library.remove("broken")
    assert list(library.user_root.iterdir()) == []


def test_models_that_came_with_the_program_are_not_removed(library: ModelLibrary):
    with pytest.raises(BundleError, match="came with this program"):
        library.remove("builtin")
    assert names(library) == ["builtin"]


@pytest.mark.parametrize("name", ["..", "../shipped/builtin", "/", ".", "absent"])
def test_removing_never_leaves_the_users_folder(library: ModelLibrary, name: str):
    library.user_root.mkdir()
    with pytest.raises(BundleError, match="no model"):
        library.remove(name)
    assert names(library) == ["builtin"]


def test_removing_a_link_keeps_the_model_it_leads_to(library: ModelLibrary, tmp_path: Path):
    save_sample(tmp_path / "kept/mine", name="mine")
    library.user_root.mkdir()
    try:
        (library.user_root / "mine").symlink_to(tmp_path / "kept/mine", target_is_directory=True)
    except OSError:
        pytest.skip("links need a privilege here")
    assert library.find("mine").name == "mine"
    library.remove("mine")
    assert (tmp_path / "kept/mine").is_dir()
    assert names(library) == ["builtin"]


def test_the_users_folder_is_chosen_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("APFORMER_MODELS", str(tmp_path / "m"))
    assert user_models() == tmp_path / "m"
    assert ModelLibrary().roots == (tmp_path / "m", *bundled_models())
    monkeypatch.delenv("APFORMER_MODELS")
    assert user_models().parts[-2:] == ("APFormerSlicer", "Models")
