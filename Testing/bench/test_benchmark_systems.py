"""`apformer benchmark systems`: every network trains and is measured, results are kept, continued and divided."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from apformer.errors import ConfigError

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.benchmarks import systems
from apformer.benchmarks.systems_data import TASKS, configuration, task_of
from apformer.benchmarks.systems_entrants import BASELINE, ENTRANTS, entrant
from apformer.benchmarks.systems_measure import _pixelwise, _placed, _volume
from apformer.benchmarks.systems_training import forward
from apformer.cli import main
from apformer.commands.benchmark import _names
from PIL import Image

SIZE = (64, 64)
INSTANT = 1e-3  # minutes: a step or two of every phase


@pytest.fixture
def livers(tmp_path: Path) -> Path:
    """Six patients with a bright square each, named as the slices of the liver data set are."""
    folder = tmp_path / "liver-ct-slices"
    listed = []
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number in range(10000, 10006):
        label = np.zeros(SIZE, np.uint8)
        label[20:40, 10 + number % 10 : 30] = 1
        name = f"liver_{number}_001.png"
        Image.fromarray(40 + 150 * label).save(folder / "imagesTr" / name)
        Image.fromarray(label).save(folder / "labelsTr" / name)
        listed.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    (folder / "dataset.json").write_text(json.dumps({"training": listed}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ENTRANTS)
def test_every_entrant_can_be_built_and_gives_logits(name: str) -> None:
    torch.manual_seed(0)
    network = ENTRANTS[name].build(1, 3, SIZE).eval()
    with torch.no_grad():
        assert forward(network, torch.zeros(1, 1, *SIZE))[0].shape == (1, 3, *SIZE)


def test_entries_are_measured_kept_and_continued(livers: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    systems.run([livers], results, minutes=INSTANT, systems=["transunet-slim-30"], size=SIZE)
    first = json.loads(results.read_text(encoding="utf-8"))
    assert list(first["entries"]) == ["liver-ct-slices/transunet-slim-30/0"]
    done = systems.run(
        [livers], results, minutes=INSTANT, systems=["mobile-utr-pruned", "transunet-slim-30"], size=SIZE
    )
    assert (
        done["entries"]["liver-ct-slices/transunet-slim-30/0"]
        == first["entries"]["liver-ct-slices/transunet-slim-30/0"]
    )
    entry = done["entries"]["liver-ct-slices/mobile-utr-pruned/0"]
    assert entry["patients"] == {"training": 5, "validation": 1}
    assert 0 <= entry["labels"]["Liver"]["dice"] <= 1
    assert entry["gmac"] >= entry["gmac_without_attention"] > 0
    assert entry["training"]["images"] >= entry["training"]["steps"] > 0
    assert entry["machine"]["cpu"]
    table = systems.render(done)
    assert "transunet-slim-30" in table and f"x {BASELINE}" in table
    systems.draw(done, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
    with pytest.raises(ConfigError, match="other settings"):
        systems.run([livers], results, minutes=2 * INSTANT, systems=["transunet"], size=SIZE)


def test_the_command_writes_the_table(livers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    options = ["-o", str(out), "--minutes", str(INSTANT), "--systems", BASELINE, "--size", "64"]
    assert main(["benchmark", "systems", str(livers), *options]) == 0
    assert BASELINE in capsys.readouterr().out
    assert len(json.loads(out.read_text(encoding="utf-8"))["entries"]) == 1


@pytest.mark.parametrize("name", ["transunet-slim-30", "transunet-slim-70"])
def test_a_slim_network_is_smaller_than_the_one_it_came_from_by_what_was_asked(
    livers: Path, tmp_path: Path, name: str
) -> None:
    budget = ENTRANTS[name].budget
    assert budget is not None and budget.parameters == pytest.approx(1 - int(name.rpartition("-")[2]) / 100)
    done = systems.run([livers], tmp_path / "r.json", minutes=INSTANT, systems=["transunet", name], size=SIZE)
    dense, slim = (done["entries"][f"liver-ct-slices/{one}/0"] for one in ("transunet", name))
    assert slim["parameters"] <= budget.parameters * dense["parameters"]
    assert slim["gmac"] <= budget.macs * dense["gmac"]


def test_names_that_are_not_known_are_told(livers: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no system 'nothing'"):
        systems.run([livers], tmp_path / "r.json", minutes=INSTANT, systems=["nothing"])
    with pytest.raises(ConfigError, match="not one of the data sets"):
        task_of(tmp_path / "somewhere")


@pytest.mark.parametrize("dims", [2, 3])
def test_all_tasks_have_a_recipe_and_the_same_one_for_all_networks(dims: int) -> None:
    recipes = [configuration(task, 0) for task in TASKS.values() if (task.patch is None) == (dims == 2)]
    assert {recipe.preprocessing.spatial_dims for recipe in recipes} == {dims}
    stages = [replace(stage, size=()) for recipe in recipes for stage in recipe.stages]
    assert len({(stage, recipe.ema_decay, recipe.weight_decay) for stage in stages for recipe in recipes}) == 1


def test_a_form_can_be_tried_with_other_arguments() -> None:
    small = entrant("leanformer[depth=1; channels=(8, 16)]").build(1, 2, SIZE)
    assert len(small.layers) == 1 and small.config.channels == (8, 16)
    assert _names("monai-unet,leanformer[channels=(8, 16);depth=1]") == [
        "monai-unet",
        "leanformer[channels=(8, 16);depth=1]",
    ]
    for wrong in ("leanformer[depth]", "leanformer[depth=__import__('os')]", "transunet[depth=1]"):
        with pytest.raises(ConfigError):
            entrant(wrong)


def test_in_volumes_networks_have_three_axes() -> None:
    for name in ("leanformer", "monai-dynunet", BASELINE):
        network = ENTRANTS[name].build(1, 2, (16, 32, 32)).eval()
        with torch.no_grad():
            assert forward(network, torch.zeros(1, 1, 16, 32, 32))[0].shape == (1, 2, 16, 32, 32)


def test_a_case_is_measured_as_its_volume_or_its_slices_together() -> None:
    assert _volume([torch.zeros(3, 4, 5)]).shape == (3, 4, 5)
    assert _volume([torch.zeros(4, 5)] * 3).shape == (3, 4, 5)


def test_the_box_of_what_is_kept_is_measured_against_the_dense_form(
    livers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "boxed", str(livers), "--size", "64", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["rows"][0]
    assert row["images"] == 1 and 0 < row["kept_cells"] <= row["box"] <= 1
    for kind in ("forward_ms", "step_ms"):
        assert all(value > 0 for value in row[kind].values()) and set(row[kind]) == {"peer", "dense", "boxed"}


def test_what_is_outside_the_networks_view_counts_as_not_found() -> None:
    placed = _placed(torch.ones(4, 6, dtype=torch.uint8), (8, 4))
    assert placed.shape == (8, 4)
    assert placed[:, 0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


def test_pixelwise_figures_are_those_of_their_definitions() -> None:
    ours, theirs = np.array([[True, True, False, False]]), np.array([[True, False, True, False]])
    found = _pixelwise([(ours, theirs)])
    assert found == {"se": [0.5], "sp": [0.5], "acc": [0.5], "iou": [1 / 3]}
