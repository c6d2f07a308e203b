"""Training: a configuration and labelled cases in, a measured bundle out; repeatable, resumable, split by patient."""

from __future__ import annotations

import copy
import gc
import itertools
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from apformer import files
from apformer.bundles import load_bundle
from apformer.bundles.preprocessing import Preprocessing
from apformer.errors import ConfigError, InputError, OutputError
from apformer.inference import Segmenter
from apformer.networks import build_network
from apformer.training import batches, parse_config, read_config, train
from apformer.training.augment import fit
from apformer.training.batches import AugmentedCases, Drawn, Draws, ahead
from apformer.training.cases import prepare, read_dataset, split_cases
from apformer.training.checkpoint import CHECKPOINT, FORMER
from apformer.training.config import Augmentation, Split, Stage
from apformer.training.loop import fingerprint
from apformer.training.parallel import Processes
from apformer.training.pathology import erase_organ, replace_organ
from apformer.training.run import write_bundle
from apformer.volume import Volume
from training_samples import SETTINGS, a_trainer, prepared, settings

CONFIGURATIONS = sorted((Path(__file__).parents[2] / "Configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_each_committed_configuration_is_valid_and_builds_its_network(path: Path) -> None:
    config = read_config(path)
    network = build_network(config.network, config.network_arguments)
    assert path.stem.startswith(config.name)
    assert sum(p.numel() for p in network.parameters()) * 2 < 6 * 2**20, "fp16 weights must stay below 6 MiB"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"stages": []}, "no \\[\\[stages\\]\\]"),
        ({"stages": [{"epochs": 1, "size": [8, 8], "batch_size": 1, "learning_rate": 0.1}]}, "2 axes"),
        ({"stages": [{"epochs": 0, "size": [8, 8, 8], "batch_size": 1, "learning_rate": 0.1}]}, "epochs"),
        ({"precision": "float8"}, "precision"),
        ({"split": {"pattern": "p[0-9]+"}}, "number"),
        ({"split": {"pattern": "("}}, "regular expression"),
        ({"speed": 3}, "unknown key 'speed'"),
        ({"augmentation": {"wobble": 1}}, "wobble"),
        ({"labels": [{**SETTINGS["labels"][0], "value": 4}]}, "1, 2, 3"),
    ],
)
def test_a_configuration_that_does_not_fit_names_the_fault(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_config(settings(**change))


def test_a_missing_section_is_named() -> None:
    incomplete = settings()
    del incomplete["split"]
    with pytest.raises(ConfigError, match="'split'"):
        parse_config(incomplete)


def test_cases_are_split_by_patient_never_by_file(a_dataset: Path) -> None:
    training, validation = split_cases(
        read_dataset(a_dataset, Split("(?P<patient>p(?P<number>[0-9]+))_", 5, 4)), Split("x", 5, 4)
    )
    assert [case.name for case in validation] == ["p4_a", "p4_b"]
    assert {case.patient for case in training}.isdisjoint(case.patient for case in validation)


def test_a_split_that_leaves_no_validation_case_is_refused(a_dataset: Path) -> None:
    rule = Split("(?P<patient>p(?P<number>[0-9]+))_", 100, 99)
    with pytest.raises(ConfigError, match="0 validation"):
        split_cases(read_dataset(a_dataset, rule), rule)


def test_a_listed_file_that_is_missing_is_named(a_dataset: Path) -> None:
    (a_dataset / "labelsTr" / "p3_a.nii.gz").unlink()
    with pytest.raises(ConfigError, match=r"p3_a\.nii\.gz"):
        read_dataset(a_dataset, parse_config(settings()).split)


def test_image_and_labels_on_different_grids_are_refused() -> None:
    image, label = Volume(np.zeros((4, 4, 4)), np.eye(4)), Volume(np.zeros((4, 4, 5)), np.eye(4))
    with pytest.raises(InputError, match="different grids"):
        prepare(image, label, parse_config(settings()).preprocessing)


def test_an_image_in_micrometres_is_refused_before_it_is_resampled() -> None:
    image = Volume(np.zeros((4, 4, 4)), np.diag([1000.0, 1000.0, 1000.0, 1.0]))
    with pytest.raises(InputError, match="covers 4000"):
        prepare(image, image, parse_config(settings()).preprocessing)


def test_preparation_resamples_image_and_labels_together() -> None:
    array = np.zeros((8, 8, 8), np.float32)
    array[2:6, 2:6, 2:6] = 1
    image, label = Volume(array, np.diag([2.0, 2, 2, 1])), Volume(array.astype(np.uint8), np.diag([2.0, 2, 2, 1]))
    pixels, target = prepare(image, label, parse_config(settings()).preprocessing)
    assert pixels.shape == (1, 16, 16, 16)
    assert target.shape == (1, 16, 16, 16)
    assert int(target.sum()) == 8 * 8 * 8
    assert pixels[target == 1].mean() > pixels[target == 0].mean() + 1


def test_fitting_pads_and_cuts_around_the_chosen_place() -> None:
    image = torch.arange(6.0).reshape(1, 1, 6)
    assert fit(image, (1, 4)).tolist() == [[[1, 2, 3, 4]]]
    assert fit(image, (1, 4), (0, 0)).tolist() == [[[0, 1, 2, 3]]]
    assert fit(image, (1, 4), (0, 1)).tolist() == [[[2, 3, 4, 5]]]
    assert fit(image, (1, 8)).tolist() == [[[0, 0, 1, 2, 3, 4, 5, 5]]]


@pytest.mark.parametrize("length", range(3, 14))
def test_fitting_to_a_larger_size_and_back_returns_every_voxel_to_its_place(length: int) -> None:
    image = torch.arange(float(length)).reshape(1, length)
    assert torch.equal(fit(fit(image, (14,)), (length,)), image)


def test_erasing_the_organ_mirrors_the_half_that_has_least_of_it() -> None:
    label = torch.zeros(1, 2, 6)
    label[..., :2] = 1
    image = torch.arange(6.0).expand(1, 2, 6)
    erased, remaining = erase_organ(image, label)
    assert erased[0, 0].tolist() == [5, 4, 3, 3, 4, 5]
    assert not remaining.any()


def test_an_organ_is_replaced_by_the_other_side_of_the_body_and_the_rest_stays() -> None:
    image, label = torch.full((1, 40, 80), 0.2), torch.zeros(1, 40, 80)
    image[..., 40:] = 0.7  # what the other side holds
    label[:, 15:25, 8:20] = 1
    image[:, 15:25, 8:20] = 1.0
    replaced, remaining = replace_organ(image, label)
    assert not remaining.any()
    assert torch.allclose(replaced[:, 15:25, 8:20], torch.tensor(0.7)), "nothing of the organ is left"
    assert torch.equal(replaced[..., 40:], image[..., 40:])
    assert torch.equal(replaced[:, :8, :40], image[:, :8, :40])
    border = replaced[0, 20, 20:40]
    assert (border.diff() <= 1e-6).all(), "from one side's value to the other's without a step up"
    assert border[-1] == pytest.approx(0.2)


def test_what_the_other_side_has_of_the_organ_keeps_its_label() -> None:
    label = torch.zeros(2, 20, 60)
    label[0, 5:15, 10:40] = 1  # reaches over the middle, columns 29 and 30
    label[1, 5:15, 10:12] = 1  # a person corrected this end
    image = torch.where(label[:1] > 0, 1.0, 0.2)
    replaced, remaining = replace_organ(image, label)
    assert torch.equal(remaining[0, :, 15:35], label[0].flip(-1)[:, 15:35])
    assert not remaining[0, 5:15, 10:18].any()
    assert not remaining[1].any()
    inside = remaining[0, 8:12, 22:38] > 0
    assert inside.all()
    assert (replaced[0, 8:12, 22:38] > 0.9).all()


def test_slices_without_the_organ_are_made_as_often_as_asked(
    a_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = {"spatial_dims": 2, "orientation": "acquired", "spacing_mm": [1.0, 1.0], "patch_size": [16, 16]}
    config = parse_config(
        settings(
            preprocessing={**SETTINGS["preprocessing"], **flat},
            network={**SETTINGS["network"], "spatial_dims": 2, "image_size": [16, 16]},
            stages=[{"epochs": 1, "size": [16, 16], "batch_size": 8, "learning_rate": 0.01}],
        )
    )
    cases, _ = prepared(a_dataset, config, tmp_path / "prepared")
    made: list[str] = []
    for name in ("erase_organ", "replace_organ"):
        monkeypatch.setattr(batches, name, lambda image, label, name=name: (made.append(name), (image, label))[1])
    dataset = AugmentedCases(cases, config.stages[0], Augmentation(empty_p=0.1, replace_p=0.3), 0)
    items = list(range(len(cases)))
    for turn in range(10):
        _ = dataset[Drawn(turn * len(items), items)]
    drawn = 10 * len(items)
    assert made.count("erase_organ") / drawn == pytest.approx(0.1, abs=0.05)
    assert made.count("replace_organ") / drawn == pytest.approx(0.3, abs=0.08)


def test_a_batch_is_augmented_the_same_whenever_its_place_comes_and_differently_at_the_next(
    a_dataset: Path, tmp_path: Path
) -> None:
    config = parse_config(settings())
    cases, _ = prepared(a_dataset, config, tmp_path / "prepared")
    made = AugmentedCases(cases, config.stages[0], config.augmentation, config.seed)
    first = made[Drawn(4, [2, 0])]["image"]
    _ = made[Drawn(6, [1, 2])]
    assert torch.equal(made[Drawn(4, [2, 0])]["image"], first)
    assert not torch.equal(made[Drawn(6, [2, 0])]["image"], first)
    other = AugmentedCases(cases, config.stages[0], config.augmentation, config.seed, Processes(1, 2).share_of)
    assert torch.equal(other[Drawn(4, [2, 0])]["image"], first[1:]), "processes share what one alone would make"


def test_every_item_is_drawn_once_before_any_is_drawn_again_from_any_place_on() -> None:
    drawn = list(itertools.islice(Draws(lambda: 7, 5).batches(0, 3), 14))
    items = [item for batch in drawn for item in batch.items]
    assert [sorted(items[n : n + 7]) for n in range(0, 42, 7)] == [list(range(7))] * 6
    assert items[:7] != items[7:14]
    later = list(itertools.islice(Draws(lambda: 7, 5).batches(15, 3), 9))
    assert later == drawn[5:]
    assert [len(batch.items) for batch in itertools.islice(Draws(lambda: 2, 5).batches(0, 3), 2)] == [2, 2]


def test_items_that_come_meanwhile_take_part_from_the_next_pass_on() -> None:
    count = [2]
    stream = Draws(lambda: count[0], 0).batches(0, 2)
    first = next(stream)
    count[0] = 4
    assert sorted(first.items) == [0, 1]
    assert sorted(next(stream).items + next(stream).items) == [0, 1, 2, 3]


def test_the_learning_rate_warms_up_and_falls_along_each_stage_to_its_very_end(a_dataset: Path, tmp_path: Path) -> None:
    stage = {"epochs": 10, "size": [16] * 3, "batch_size": 1, "learning_rate": 1.0, "final_learning_rate": 0.5}
    config = parse_config(settings(stages=[stage, {**stage, "learning_rate": 0.5, "final_learning_rate": 0.0}]))
    trainer = a_trainer(a_dataset, config, tmp_path / "run")
    rates = []
    while trainer.schedule.coming() is not None:
        while (moment := trainer.schedule.step()) is not None:
            rates.append(trainer.learning_rate(moment))
            trainer.schedule.stepped()
    peak = int(np.argmax(rates))
    assert 0 < peak <= 0.1 * len(rates)
    assert rates[0] < 0.25
    assert all(a >= b for a, b in zip(rates[peak:], rates[peak + 1 :], strict=False))
    assert rates[len(rates) // 2] == pytest.approx(0.5, abs=0.01)
    assert rates[-1] == 0.0


def test_an_interrupted_run_resumes_to_exactly_the_weights_of_an_uninterrupted_one(
    a_dataset: Path, tmp_path: Path
) -> None:
    config = parse_config(settings())
    whole = a_trainer(a_dataset, config, tmp_path / "whole").run()

    class StoppedError(Exception):
        pass

    def stop_after_two(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        a_trainer(a_dataset, config, tmp_path / "parts", on_epoch=stop_after_two).run()
    again = a_trainer(a_dataset, config, tmp_path / "parts")
    again.resume()
    assert again.epoch == 2
    resumed = again.run()
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert [row["epoch"] for row in again.rows] == [1, 2, 3, 4]


def test_no_case_stays_in_memory(a_dataset: Path, tmp_path: Path) -> None:
    training, _ = prepared(a_dataset, parse_config(settings()), tmp_path / "prepared")
    seen = [weakref.ref(tensor) for index in range(len(training)) for tensor in training.item(index)]
    gc.collect()
    assert len(seen) == 2 * len(training) > 2
    assert [reference for reference in seen if reference() is not None] == []


def test_another_loop_can_drive_the_training_step_as_a_federated_client_would(a_dataset: Path, tmp_path: Path) -> None:
    config = parse_config(settings())
    stage = config.stages[0]
    clients = [a_trainer(a_dataset, config, tmp_path / name) for name in ("one", "other")]
    common = {name: value.clone() for name, value in clients[0].network.state_dict().items()}
    for _ in range(2):
        for number, client in enumerate(clients):
            client.network.load_state_dict(common)
            items = [client.training.item(index) for index in range(2 * number, 2 * number + 2)]
            images, labels = (torch.stack(parts) for parts in zip(*items, strict=True))
            assert client.train_step(stage, {"image": images, "label": labels}, rate=0.01)["total"] > 0
        states = [client.network.state_dict() for client in clients]
        common = {name: (value + states[1][name]) / 2 for name, value in states[0].items() if value.is_floating_point()}
        common |= {name: value for name, value in states[0].items() if name not in common}
    assert not torch.equal(states[0]["head.weight"], states[1]["head.weight"]), "each learned from its own cases"
    assert all(bool(value.isfinite().all()) for value in common.values())


def test_a_checkpoint_of_another_configuration_is_refused(a_dataset: Path, tmp_path: Path) -> None:
    a_trainer(
        a_dataset, parse_config(settings(stages=[{**SETTINGS["stages"][0], "epochs": 1}])), tmp_path / "run"
    ).run()
    other = a_trainer(a_dataset, parse_config(settings(seed=1)), tmp_path / "run")
    with pytest.raises(ConfigError, match="another configuration"):
        other.resume()


def test_frozen_positions_stay_and_everything_else_learns(a_dataset: Path, tmp_path: Path) -> None:
    config = parse_config(settings(stages=[{**SETTINGS["stages"][0], "epochs": 1, "learn_position": False}]))
    trainer = a_trainer(a_dataset, config, tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    trainer.run()
    for name, value in trainer.network.named_parameters():
        assert torch.equal(value, before[name]) == (".position." in name), name


@pytest.mark.parametrize("kept", [False, True])
def test_statistics_of_batch_norms_stay_where_that_is_asked_and_their_weights_learn(
    a_dataset: Path, tmp_path: Path, kept: bool
) -> None:
    pruned = {**settings()["network"], "norm": "batch", "prune_queries": True}
    stage = {**settings()["stages"][0], "epochs": 2, "gates": "open"}
    changed = settings(network=pruned, keep_statistics=kept, stages=[stage], pruning={"budget": "keep=0.5"})
    config = parse_config(changed)
    trainer = a_trainer(a_dataset, config, tmp_path)
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.run()
    after = trainer.network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    statistics = {name for name in before if "running_" in name}
    assert statistics and (statistics & moved == (set() if kept else statistics))
    assert any(name.endswith(".weight") and name.replace("weight", "running_mean") in statistics for name in moved)


def test_training_learns_and_its_bundle_segments_new_images(a_dataset: Path, tmp_path: Path) -> None:
    stages = [{"epochs": 14, "size": [16] * 3, "batch_size": 2, "learning_rate": 0.02, "validate_every": 7}]
    events: list[dict[str, Any]] = []
    config = parse_config(settings(stages=stages, card={"intended_use": "Testing."}))
    bundle = train(config, a_dataset, tmp_path / "out", device="cpu", workers=0, on_event=events.append)

    losses = [event["loss_segmentation"] for event in events if event["event"] == "epoch"]
    assert losses[-1] < 0.7 * losses[0]
    assert load_bundle(bundle.directory).checksum == bundle.checksum
    assert bundle.metadata["metrics"]["patients"] == ["p1"]
    assert bundle.metadata["metrics"]["labels"]["Ball"]["pooled_dice"] > 0.7
    assert "Testing." in bundle.card
    for name in ("log.csv", "log.jsonl", "curves.png", "overlay.png"):
        assert (tmp_path / "out" / name).stat().st_size > 100
    image = files.read_volume(a_dataset / "imagesTr" / "p1_a.nii.gz")
    assert Segmenter(bundle, "cpu").segment(image).labels.array.any()


def test_a_base_with_other_labels_or_widths_is_refused(a_dataset: Path, tmp_path: Path) -> None:
    config = parse_config(settings())
    network = build_network(config.network, config.network_arguments)
    base = write_bundle(config, network.state_dict(), tmp_path / "ball")
    other = copy.deepcopy(SETTINGS["labels"])
    other[0]["name"] = "Cube"
    for changes in ({"labels": other}, {"network": {**SETTINGS["network"], "ffn_dim": 9}}):
        trainer = a_trainer(a_dataset, parse_config(settings(**changes)), tmp_path / "run")
        with pytest.raises(ConfigError, match="cannot be the base"):
            trainer.start_from(base)


def test_a_base_of_batch_norms_gives_its_weights_to_instance_norms_but_not_the_other_way(
    a_dataset: Path, tmp_path: Path
) -> None:
    batch = parse_config(settings())
    instance = parse_config(settings(network={**SETTINGS["network"], "norm": "instance"}))
    bases = {
        name: write_bundle(
            config, build_network(config.network, config.network_arguments).state_dict(), tmp_path / name
        )
        for name, config in (("batch", batch), ("instance", instance))
    }
    trainer = a_trainer(a_dataset, instance, tmp_path / "run")
    trainer.start_from(bases["batch"])
    base = bases["batch"].build_network().state_dict()
    assert all(torch.equal(value, base[name]) for name, value in trainer.network.state_dict().items())
    with pytest.raises(ConfigError, match=r"differ, for example in .*(running|num_batches)"):
        a_trainer(a_dataset, batch, tmp_path / "run").start_from(bases["instance"])


def test_a_configuration_inherits_what_it_does_not_say(tmp_path: Path) -> None:
    parent = next(path for path in CONFIGURATIONS if not path.stem.endswith("-pruned"))
    (tmp_path / parent.name).write_text(parent.read_text(encoding="utf-8"), encoding="utf-8")
    child = tmp_path / "child.toml"
    child.write_text(f'inherits = "{parent.name}"\nversion = "9.9.9"\n[augmentation]\nflip_p = 0.125\n')
    inherited, original = read_config(child), read_config(parent)
    assert (inherited.version, inherited.augmentation.flip_p) == ("9.9.9", 0.125)
    assert inherited.augmentation.zoom == original.augmentation.zoom
    assert inherited.stages == original.stages
    child.write_text('inherits = "../elsewhere.toml"\n')
    with pytest.raises(ConfigError, match="same folder"):
        read_config(child)


def test_another_training_never_overwrites_a_checkpoint_unasked(a_dataset: Path, tmp_path: Path) -> None:
    for name in (CHECKPOINT, FORMER):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(b"precious")
        with pytest.raises(OutputError, match="another training"):
            train(parse_config(settings()), a_dataset, tmp_path / name, device="cpu")
        assert (tmp_path / name / name).read_bytes() == b"precious"


def test_a_checkpoint_of_the_former_format_is_not_read_and_said_to_be_of_no_use(
    a_dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / FORMER).write_bytes(b"anything")
    with pytest.raises(OutputError, match="earlier version") as caught:
        train(parse_config(settings()), a_dataset, tmp_path / "out", device="cpu", resume=True)
    assert "delete the file" in caught.value.remedy


def test_resuming_without_a_checkpoint_says_so(a_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no checkpoint"):
        train(parse_config(settings()), a_dataset, tmp_path / "out", device="cpu", resume=True)


def test_the_card_names_the_command_and_the_base(a_dataset: Path, tmp_path: Path) -> None:
    stages = [{**SETTINGS["stages"][0], "epochs": 1}]
    first = replace(parse_config(settings(stages=stages)), file="Configs/first.toml")
    base = train(first, a_dataset, tmp_path / "first", device="cpu", workers=0)
    assert "- Repeat with: `apformer train DATASET --config Configs/first.toml -o OUT`\n" in base.card
    second = replace(parse_config(settings(stages=stages, version="2.0.0")), file="second.toml")
    card = train(second, a_dataset, tmp_path / "second", device="cpu", workers=0, base=base).card
    assert (
        f"`apformer train DATASET --config second.toml -o OUT --base BASE`, where BASE is {base.name} {base.version}, "
        "made by `Configs/first.toml`\n" in card
    )


def test_a_checkpoint_is_resumed_whatever_the_name_of_its_configuration(tmp_path: Path) -> None:
    path = next(path for path in CONFIGURATIONS if not path.stem.endswith("-pruned"))
    (tmp_path / "mine.toml").write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    mine, committed = read_config(tmp_path / "mine.toml"), read_config(path)
    assert committed.file == f"Configs/{path.name}"
    assert mine.file == f"{tmp_path.name}/mine.toml"
    assert fingerprint(mine) == fingerprint(committed)


def test_a_draft_bundle_says_that_it_was_not_measured(tmp_path: Path) -> None:
    config = parse_config(settings())
    network = build_network(config.network, config.network_arguments)
    assert "Not measured" in write_bundle(config, network.state_dict(), tmp_path / "ball").card


def test_a_stage_may_cut_at_full_resolution_from_anywhere(a_dataset: Path, tmp_path: Path) -> None:
    flat = {**SETTINGS["preprocessing"], "spatial_dims": 2, "orientation": "acquired", "spacing_mm": [1.0, 1.0]}
    config = parse_config(
        settings(
            preprocessing={**flat, "patch_size": [16, 16]},
            network={**SETTINGS["network"], "spatial_dims": 2, "image_size": [16, 16]},
            stages=[{"epochs": 1, "size": [8, 8], "crop": True, "batch_size": 8, "learning_rate": 0.01}],
        )
    )
    cases, _ = prepared(a_dataset, config, tmp_path / "prepared")
    off = Augmentation(affine_p=0, zoom_p=0, noise_p=0, blur_p=0, low_resolution_p=0, contrast_p=0, intensity_p=0)
    dataset = AugmentedCases(cases, config.stages[0], off, 0)
    whole, _ = cases.item(5)
    windows = whole[0].unfold(0, 8, 1).unfold(1, 8, 1).reshape(-1, 8, 8)
    places = set()
    for turn in range(12):
        distance = (windows - dataset[Drawn(turn, [5])]["image"][0, 0]).abs().amax((1, 2))
        assert distance.min() < 1e-5, "a cut is a piece of the image, unscaled"
        places.add(int(distance.argmin()))
    assert len(places) > 3


def test_half_of_the_cuts_hold_a_structure_whichever_is_small_or_rare(a_dataset: Path, tmp_path: Path) -> None:
    config = parse_config(settings(stages=[{"epochs": 1, "size": [4, 4, 4], "batch_size": 1, "learning_rate": 0.01}]))
    cases, _ = prepared(a_dataset, config, tmp_path / "prepared")
    image, label = cases.item(0)
    path = cases._paths(cases.case(0))[1]
    label[:] = 0
    label[0, 2, 3, 4] = 2
    label[0, 9:, 9:, 9:] = 1
    np.save(path, label.numpy())
    off = Augmentation(affine_p=0, zoom_p=0, noise_p=0, blur_p=0, low_resolution_p=0, contrast_p=0, intensity_p=0)
    dataset = AugmentedCases(cases, config.stages[0], off, 0)
    cuts = [dataset[Drawn(turn, [0])] for turn in range(200)]
    shares = [sum(bool((cut["label"] == value).any()) for cut in cuts) / len(cuts) for value in (1, 2)]
    assert all(0.22 < share < 0.6 for share in shares), "a quarter of all cuts are around each, some others meet it"
    pieces = image[0].unfold(0, 4, 1).unfold(1, 4, 1).unfold(2, 4, 1).reshape(-1, 4, 4, 4)
    assert all((pieces - cut["image"][0, 0]).abs().amax((1, 2, 3)).min() < 1e-5 for cut in cuts[:5])


@pytest.mark.parametrize(
    ("spacing", "patch", "stage", "edges"),
    [
        (
            (3.9, 3.8, 2.5),
            (16, 24, 32),
            Stage(1, (16, 24, 32), 2, 0.01),
            [2.5, 3.8, 3.9],
        ),  # told as i, j, k
        ((1.0, 2.0), (16, 32), Stage(1, (16, 16), 2, 0.01), [2.0, 2.0]),  # shown whole in half as many columns
        ((1.0, 2.0), (16, 32), Stage(1, (16, 16), 2, 0.01, crop=True), [2.0, 1.0]),
        (None, (16, 16), Stage(1, (8, 8), 2, 0.01), None),
    ],
)
def test_images_are_turned_with_the_edges_that_their_voxels_have_in_the_batch(
    spacing: tuple[float, ...] | None,
    patch: tuple[int, ...],
    stage: Stage,
    edges: list[float] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    preprocessing = Preprocessing(
        len(patch), "RAS", spacing, patch, {"kind": "percentile", "lower": 0.5, "upper": 99.5}
    )
    told: list[Any] = []
    monkeypatch.setattr(batches, "Augmenter", lambda config, size, air, edges: told.append(edges))
    AugmentedCases(SimpleNamespace(preprocessing=preprocessing), stage, Augmentation(), 0)  # type: ignore[arg-type]
    assert told == [pytest.approx(edges) if edges else None]


def test_a_2d_model_trains_on_the_slices_of_volumes(a_dataset: Path, tmp_path: Path) -> None:
    flat_settings = settings(
        preprocessing={
            **SETTINGS["preprocessing"],
            "spatial_dims": 2,
            "orientation": "acquired",
            "spacing_mm": [1.0, 1.0],
            "patch_size": [16, 16],
        },
        network={**SETTINGS["network"], "spatial_dims": 2, "image_size": [16, 16]},
        stages=[{"epochs": 1, "size": [8, 8], "batch_size": 8, "learning_rate": 0.01}],
    )
    config = parse_config(flat_settings)
    cases, _ = prepared(a_dataset, config, tmp_path / "prepared")
    assert len(cases) == 6 * 14
    stage = Stage(1, (8, 8), 8, 0.01)
    item = AugmentedCases(cases, stage, config.augmentation, 0)[Drawn(0, [5])]
    assert item["image"].shape == (1, 1, 8, 8)
    assert item["label"].dtype == torch.uint8


def test_an_error_while_a_batch_is_made_ahead_is_not_lost() -> None:
    def broken() -> Iterator[dict[str, torch.Tensor]]:
        yield {"image": torch.zeros(1)}
        raise InputError("The second batch cannot be made.", "", "")

    made = ahead(broken())
    assert next(made)["image"].shape == (1,)
    with pytest.raises(InputError, match="second batch"):
        next(made)
