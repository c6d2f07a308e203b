"""What cannot be fine-tuned is refused in words before anything is computed, and nothing is lost by asking."""

from __future__ import annotations

import copy
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from apformer.bundles import Bundle, ModelLibrary
from apformer.datasets import SiteDataset
from apformer.datasets.table import make_table
from apformer.errors import APFormerError, BundleError, ConfigError, InputError, OutputError

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.finetuning import Request, finetune, timing
from apformer.finetuning.folder import TRAININGS
from apformer.inference import Segmenter
from apformer.networks import build_network
from apformer.training.config import parse_config
from apformer.training.run import write_bundle
from apformer.volume import Volume
from crash_samples import TINY, Stopped, Stopper, plain_pictures
from dataset_samples import assert_sound
from finetune_samples import GRID, a_ball, a_request, a_site
from training_samples import SETTINGS

Change = Callable[[SiteDataset], Any]


@pytest.fixture(autouse=True)
def pictures_are_not_drawn() -> Iterator[None]:
    with plain_pictures():
        yield


def a_model(folder: Path, name: str = "ball", **settings: Any) -> Bundle:
    """An untrained model of the label Ball in `folder`/`name`; "network" and "preprocessing" are changed in part."""
    changed = copy.deepcopy(SETTINGS) | {"name": name}
    for key, value in {"network": {}, **settings}.items():
        changed[key] = {**changed[key], **(TINY if key == "network" else {}), **value} if key in PARTIAL else value
    config = parse_config(changed)
    torch.manual_seed(1)
    weights = build_network(config.network, config.network_arguments).state_dict()
    return write_bundle(config, weights, folder / name)


PARTIAL = ("network", "preprocessing")
COLOURED: dict[str, Any] = {"modality": "RGB", "channels": 3, "network": {"in_channels": 3}}
FLAT: dict[str, Any] = {
    "preprocessing": {
        "spatial_dims": 2,
        "orientation": "acquired",
        "spacing_mm": [1.0, 1.0],
        "patch_size": [16, 16],
    },
    "network": {"spatial_dims": 2, "image_size": [16, 16]},
    "stages": [{"epochs": 1, "size": [16, 16], "batch_size": 2, "learning_rate": 0.02}],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    a_model(folder)
    a_model(folder, "coloured", **COLOURED)
    a_model(folder, "flat", **FLAT)
    return folder


@pytest.fixture
def library(models: Path, tmp_path: Path) -> ModelLibrary:
    """The models ball, coloured (of three channels) and flat (2D); new ones go to a folder of the test's own."""
    return ModelLibrary([tmp_path / "models", models])


def files_in(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def refusal(request: Request, library: ModelLibrary, kind: type[APFormerError] = ConfigError) -> APFormerError:
    """The error that `request` gives; asking must have cost neither case nor version, and left nothing to resume."""
    before = files_in(request.dataset / "cases", *library.roots)
    with pytest.raises(kind) as caught:
        finetune(request, library=library)
    assert files_in(request.dataset / "cases", *library.roots) == before
    assert not (request.dataset / TRAININGS / request.name / "plan.json").exists()
    error = caught.value
    assert len({error.what, error.meaning, error.remedy}) == 3
    assert all(re.search(r"[.`]$", text) for text in (error.what, error.meaning, error.remedy))
    return error


# ------------------------------------------------------------------------------------------------ the data set


def without_voxels(site: SiteDataset) -> None:
    for case in site.cases():
        site.correct(case.name, Volume(np.zeros((16, 16, 16), np.uint8), GRID))


def on_another_grid(site: SiteDataset) -> None:
    path = site.cases()[0].labels_path
    assert path is not None
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((16, 16, 8), np.uint8)), str(path))


def with_half_an_image(site: SiteDataset) -> None:
    path = site.cases()[0].image_path
    path.write_bytes(path.read_bytes()[:1000])


def without_an_image(site: SiteDataset) -> None:
    site.cases()[0].image_path.unlink()


def nothing(site: SiteDataset) -> None:
    """The data set is wrong as it is."""


@pytest.mark.parametrize(
    ("patients", "change", "what", "remedy"),
    [
        (0, nothing, "of 0 patients", "Complete cases of 3 more"),
        (1, nothing, "of 1 patient", "Complete cases of 2 more"),
        (2, nothing, "of 2 patients", "Complete cases of 1 more"),
        (8, without_voxels, "label map of every completed case is empty", "Check that the right files were added"),
        (8, on_another_grid, "was changed since it was added", "Restore it from a backup"),
        (8, with_half_an_image, "was changed since it was added", "Restore it from a backup"),
        (8, without_an_image, "could not be read: No such file", "."),
    ],
)
def test_a_data_set_that_cannot_be_trained_on_is_refused(
    tmp_path: Path, library: ModelLibrary, patients: int, change: Change, what: str, remedy: str
) -> None:
    site = a_site(tmp_path / "site", patients)
    change(site)
    error = refusal(a_request(site), library)
    assert re.search(what, error.what) and re.search(remedy, error.remedy)


def test_labels_on_another_grid_are_told_as_such(tmp_path: Path, library: ModelLibrary) -> None:
    site = a_site(tmp_path / "site")
    on_another_grid(site)
    assert "another grid" in refusal(a_request(site), library).meaning


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, Path.touch])
def test_a_folder_that_is_no_data_set_is_named(
    tmp_path: Path, library: ModelLibrary, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "nowhere")
    error = refusal(Request(tmp_path / "nowhere", "mine", "ball", steps=6), library, APFormerError)
    assert str(tmp_path / "nowhere") in error.what


@pytest.mark.parametrize("name", ["", "a/b", "..", "with blank", "x" * 200, "-x"])
def test_a_name_that_no_model_can_have_is_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError) as caught:
        Request(tmp_path, name, None)
    assert caught.value.remedy


# ------------------------------------------------------------------------------------------------ labels


@pytest.mark.parametrize(
    ("settings", "what", "remedy"),
    [
        ({"labels": ("Spleen",)}, "no label 'Spleen'", "Ball, Hole"),
        ({"labels": ("Ball", "Never")}, "Never is outlined in no completed case", "Outline it"),
        ({"mapping": {"Hole": "Cavity"}}, "The base has no label 'Cavity'", "It has: Ball"),
        ({"mapping": {"Gap": "Ball"}}, "no label 'Gap'", "Ball, Hole"),
        ({"mapping": {"Hole": "Ball"}}, "Ball and Hole would both be Ball", "Map each label to one of its own"),
    ],
)
def test_labels_that_do_not_fit_are_named(
    tmp_path: Path, library: ModelLibrary, settings: dict[str, Any], what: str, remedy: str
) -> None:
    site = a_site(tmp_path / "site")
    site.add_label("Never", 7)
    error = refusal(a_request(site, **settings), library)
    assert what in error.what and remedy in error.remedy


# ------------------------------------------------------------------------------------------------ the base


def test_a_base_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, library: ModelLibrary) -> None:
    error = refusal(a_request(a_site(tmp_path / "site"), base="bal"), library, BundleError)
    assert "'bal'" in error.what and "ball" in error.remedy


def test_a_base_of_another_number_of_channels_is_refused(tmp_path: Path, library: ModelLibrary) -> None:
    error = refusal(a_request(a_site(tmp_path / "site"), base="coloured"), library)
    assert "1 channels" in error.what and "takes 3" in error.what


def slices(folder: Path, volumes: int = 0) -> SiteDataset:
    """A data set of eight cases, single slices but for the first few."""
    site = SiteDataset.create(folder, make_table(["Ball,Hole"]))
    for seed in range(8):
        image, truth = a_ball(seed)
        if seed >= volumes:
            k = int(truth.array.any((1, 2)).argmax())
            image, truth = Volume(image.array[k : k + 1], GRID, "MR"), Volume(truth.array[k : k + 1], GRID)
        site.add(image, truth, patient=f"patient {seed}")
    return site


@pytest.mark.parametrize(("base", "volumes"), [("ball", 0), ("ball", 7), (None, 7)])
def test_a_network_of_volumes_is_not_trained_on_single_slices(
    tmp_path: Path, library: ModelLibrary, base: str | None, volumes: int
) -> None:
    error = refusal(a_request(slices(tmp_path / "site", volumes), base=base), library)
    assert "Not every case is a volume" in error.what
    assert ("case-0001" in error.what) is (volumes == 0), "those are named that are single slices"
    assert volumes == 0 or "case-0008" in error.what


def test_a_network_of_slices_learns_from_volumes_slice_by_slice(tmp_path: Path, library: ModelLibrary) -> None:
    outcome = finetune(a_request(a_site(tmp_path / "site"), base="flat"), library=library)
    assert outcome.bundle.preprocessing.spatial_dims == 2
    assert len(outcome.summary["after"]["cases"]) == outcome.summary["data"]["validation_patients"] == 2
    image, _ = a_ball(50)
    assert Segmenter(outcome.bundle, "cpu").segment(image).labels.array.shape == image.array.shape


def test_another_kind_of_model_under_the_name_is_noticed_before_it_has_to_be_measured(
    tmp_path: Path, library: ModelLibrary
) -> None:
    error = refusal(a_request(a_site(tmp_path / "site"), name="coloured"), library)
    assert "coloured 1.0.0" in error.what and "another name" in error.remedy


# ------------------------------------------------------------------------------------------------ files that go


def prepared(site: SiteDataset, case: str, kind: str) -> Path:
    (path,) = (site.root / TRAININGS).rglob(f"{case}-*.{kind}.npy")
    return path


def first_of(site: SiteDataset, validation: bool) -> str:
    """The name of a case that trains, or validates."""
    split = site.split
    assert split is not None
    return split.divide(site.cases())[validation][0].name


def when(what: str, action: Callable[[], Any]) -> Callable[[dict[str, Any]], None]:
    """A listener that acts once, when the event or message is told."""
    waiting = [action]

    def listen(event: dict[str, Any]) -> None:
        if waiting and (event["event"] == what or what in event.get("message", "")):
            waiting.pop()()

    return listen


@pytest.mark.parametrize("budget", [None, "keep=0.5"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:150])])
def test_a_training_case_that_becomes_unreadable_between_epochs_is_left_out_and_named(
    tmp_path: Path, library: ModelLibrary, damage: Callable[[Path], Any], budget: str | None
) -> None:
    site = a_site(tmp_path / "site")
    site.freeze_split()
    lost = first_of(site, validation=False)
    listen = when("epoch", lambda: damage(prepared(site, lost, "image")))
    outcome = finetune(a_request(site, budget=budget, steps=12), library=library, on_event=listen)
    (skipped,) = outcome.summary["data"]["skipped"]
    assert skipped["case"] == lost and "cannot be read" in skipped["reason"]
    assert_sound(site)


def test_it_is_still_named_when_the_training_was_stopped_and_resumed(tmp_path: Path, library: ModelLibrary) -> None:
    site = a_site(tmp_path / "site")
    site.freeze_split()
    lost = first_of(site, validation=False)
    stopper = Stopper("step 6", 2)
    listen = when("epoch", lambda: prepared(site, lost, "image").unlink())

    def both(event: dict[str, Any]) -> None:
        listen(event)
        stopper(event)

    with pytest.raises(Stopped):
        finetune(a_request(site, steps=9), library=library, on_event=both, check=stopper.check)
    outcome = finetune(a_request(site, steps=9, resume=True), library=library)
    assert [skipped["case"] for skipped in outcome.summary["data"]["skipped"]] == [lost]


def test_a_validation_case_that_becomes_unreadable_stops_the_training_which_can_be_resumed(
    tmp_path: Path, library: ModelLibrary
) -> None:
    site = a_site(tmp_path / "site")
    site.freeze_split()
    lost = first_of(site, validation=True)
    listen = when("epoch", lambda: prepared(site, lost, "label").unlink())
    with pytest.raises(InputError, match=f"prepared form of {lost}") as caught:
        finetune(a_request(site), library=library, on_event=listen)
    assert "prepared anew" in caught.value.remedy
    outcome = finetune(a_request(site, resume=True), library=library)
    assert outcome.summary["data"]["skipped"] == []
    assert lost in outcome.summary["after"]["cases"]


def test_without_any_readable_training_case_the_training_says_so(tmp_path: Path, library: ModelLibrary) -> None:
    site = a_site(tmp_path / "site")
    site.freeze_split()

    def remove_all() -> None:
        for path in (site.root / TRAININGS).rglob("*.image.npy"):
            path.unlink()

    with pytest.raises(InputError, match=r"None of the prepared training cases|prepared form of"):
        finetune(a_request(site), library=library, on_event=when("epoch", remove_all))
    assert finetune(a_request(site, resume=True), library=library).bundle.version == "1.0.0"


@pytest.mark.parametrize(("validation", "moment"), [(False, "measuring ball"), (True, "measuring ball"), (True, "log")])
def test_a_file_that_goes_before_the_cases_are_prepared_is_left_out_and_named(
    tmp_path: Path, library: ModelLibrary, validation: bool, moment: str
) -> None:
    site = a_site(tmp_path / "site")
    site.freeze_split()
    lost = first_of(site, validation)
    listen = when(moment, lambda: site.case(lost).image_path.unlink())
    outcome = finetune(a_request(site), library=library, on_event=listen)
    (skipped,) = outcome.summary["data"]["skipped"]
    assert skipped["case"] == lost and lost in skipped["reason"]
    assert (lost in outcome.summary["after"]["cases"]) is False
    assert outcome.summary["before"]["cases"].keys() == outcome.summary["after"]["cases"].keys()


def test_an_image_that_cannot_be_segmented_is_left_out_and_named(
    tmp_path: Path, library: ModelLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = a_site(tmp_path / "site")
    site.freeze_split()
    odd, segment = first_of(site, validation=True), Segmenter.segment

    def picky(self: Segmenter, volume: Volume, **options: Any) -> Any:
        if volume.source.path == site.case(odd).image_path:
            raise InputError(f"{odd} cannot be segmented.", "It is odd.", "Leave it out.")
        return segment(self, volume, **options)

    monkeypatch.setattr(Segmenter, "segment", picky)
    outcome = finetune(a_request(site), library=library)
    assert outcome.summary["data"]["skipped"] == [{"case": odd, "reason": f"{odd} cannot be segmented."}]
    assert len(outcome.summary["after"]["cases"]) == 1


# ------------------------------------------------------------------------------------------------ one at a time


def test_two_trainings_on_one_data_set_are_not_run_at_once(tmp_path: Path, library: ModelLibrary) -> None:
    site = a_site(tmp_path / "site")
    told: list[APFormerError] = []

    def second() -> None:
        with pytest.raises(OutputError) as caught:
            finetune(a_request(site, name="second"), library=library)
        told.append(caught.value)

    first = finetune(a_request(site, name="first"), library=library, on_event=when("epoch", second))
    assert "Another training is running" in told[0].what and f"process {os.getpid()} on" in told[0].what
    assert first.bundle.version == "1.0.0"
    assert not (site.root / TRAININGS / "second").exists()
    assert finetune(a_request(site, name="second"), library=library).bundle.version == "1.0.0"


def test_there_is_nothing_to_resume_before_a_training_began(tmp_path: Path, library: ModelLibrary) -> None:
    error = refusal(a_request(a_site(tmp_path / "site"), resume=True), library)
    assert "no unfinished training" in error.what and "without --resume" in error.remedy


def test_an_unfinished_training_is_not_overwritten(tmp_path: Path, library: ModelLibrary) -> None:
    site = a_site(tmp_path / "site")
    stopper = Stopper("1: epoch")
    with pytest.raises(Stopped):
        finetune(a_request(site), library=library, on_event=stopper, check=stopper.check)
    before = files_in(site.root / TRAININGS)
    with pytest.raises(ConfigError, match="not finished") as caught:
        finetune(a_request(site), library=library)
    assert "--resume" in caught.value.remedy and str(site.root / TRAININGS / "site-ball") in caught.value.remedy
    assert files_in(site.root / TRAININGS) == before
    shutil.rmtree(site.root / TRAININGS / "site-ball")  # the way that the error names
    stopper = Stopper("1: epoch")
    with pytest.raises(Stopped):
        finetune(a_request(site), library=library, on_event=stopper, check=stopper.check)


def test_a_data_set_that_cannot_be_written_is_named(
    tmp_path: Path, library: ModelLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = a_site(tmp_path / "site")
    site.freeze_split()
    (site.root / TRAININGS).mkdir()
    real = os.open

    def refuse(path: Any, flags: int, *rest: int, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(site.root) in str(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)  # root may write to any folder, so permissions would prove nothing
    error = refusal(a_request(site), library, OutputError)
    assert str(site.root / TRAININGS) in error.what and "Read-only file system" in error.what
    assert "Another training" not in error.what


# ------------------------------------------------------------------------------------------------ time


def test_too_little_time_is_refused_with_what_is_missing_and_that_much_more_is_enough(
    tmp_path: Path, library: ModelLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = a_site(tmp_path / "site")
    monkeypatch.setattr(timing.StepTimer, "_time", lambda self, stage, half: 2.0)  # seconds a step, on this machine
    error = refusal(a_request(site, steps=None, seconds=40.0), library)
    assert "steps" in error.what
    more = re.search(r"at least (\d+) (s|min) more", error.remedy)
    assert more is not None
    seconds = 40.0 + int(more[1]) * {"s": 1, "min": 60}[more[2]]
    stopper = Stopper("preparing", 9)
    with pytest.raises(Stopped):  # it begins: a refused training is not in the way
        finetune(a_request(site, steps=None, seconds=seconds), library=library, on_event=stopper, check=stopper.check)
    assert stopper.told[-1]["message"] == "preparing the cases"
