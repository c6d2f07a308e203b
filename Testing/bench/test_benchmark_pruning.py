"""`apformer benchmark pruning`: kept sets are as stated, counts are those by hand. No test asserts a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apformer.benchmarks import pareto, pruned_bundle, pruning
from apformer.benchmarks.kept_sets import DENSE, FLOOR, MASKED, VARIANTS, Rig, Variant, blob
from apformer.bundles import Bundle, Code, Label, Preprocessing, save_bundle
from apformer.cli import main
from apformer.errors import BundleError, ConfigError
from apformer.networks.apformer import APFormer
from apformer.pruning.attention import ragged_layer
from apformer.pruning.gates import dilate
from apformer.pruning.threshold import find_threshold
from PIL import Image

SMALL: dict[str, Any] = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 2,
    "image_size": (64, 64),
    "channels": (2, 2, 2, 8),
    "depth": 2,
    "heads": 2,
    "head_dim": 4,
    "ffn_dim": 8,
}
GATES = {"prune_queries": True, "prune_keys": True}
TOKENS = 64
NAMED = {variant.name: variant for variant in VARIANTS}


@pytest.fixture
def a_rig() -> Rig:
    """A small network for 64 x 64 images, 8 x 8 tokens."""
    torch.manual_seed(0)
    return Rig(APFormer(**SMALL, **GATES).eval(), (64, 64))


@pytest.fixture(scope="module")
def small_table() -> dict[str, Any]:
    """All variants of the small network in two rounds, the peak of one of them."""
    setting = pruning.Setting("small", SMALL, (2, 1, 64, 64))
    return pruning.compare(setting, 2, "cpu", (DENSE.name,))


def row(table: dict[str, Any], name: str) -> dict[str, Any]:
    """The row of a variant."""
    return next(row for row in table["rows"] if row["variant"] == name)


def work(rig: Rig, variant: Variant, image: torch.Tensor) -> Any:
    """Auxiliaries of one pass."""
    with torch.inference_mode():
        return rig.use(variant)(image, auxiliaries=True)[1]


def macs_by_hand(queries: int, keys: list[int]) -> float:
    """Transformer layers of SMALL: 8 wide, 2 heads x 4, hidden 8; so many kept queries, and keys per layer."""
    inner, width, hidden = 8, 8, 8
    return float(
        sum(
            queries * (2 * inner * width + 2 * width * hidden) + n * 2 * inner * width + 2 * queries * n * inner
            for n in keys
        )
    )


@pytest.mark.parametrize("keep", [1.0, 0.5, 0.3, 0.1])
@pytest.mark.parametrize("grid", [(32, 32), (8, 8, 6)])
def test_a_blob_has_the_stated_share_and_is_compact(grid: tuple[int, ...], keep: float):
    kept = blob(grid, keep)
    count = round(keep * kept.numel())
    assert kept.shape == grid
    assert kept.sum() == count
    places = kept.nonzero()
    extent = [int(axis.max() - axis.min()) + 1 for axis in places.T]
    # A ball fills pi/4 of its square and pi/6 of its cube; scattered tokens would span the whole grid.
    assert keep == 1.0 or np.prod(extent) <= 2.5 * count


def test_a_blob_is_never_empty():
    assert blob((2, 2), 0.01).sum() == 1


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.transformer and v.gating != "off"], ids=lambda v: v.name)
def test_the_network_keeps_the_stated_tokens_and_keys_in_every_image(a_rig: Rig, variant: Variant):
    image = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    auxiliaries = work(a_rig, variant, image)
    kept = round(variant.keep * TOKENS)
    assert auxiliaries.kept.flatten(1).sum(1).tolist() == [kept, kept]
    later = kept if variant.keys else TOKENS
    assert auxiliaries.transformer_macs.tolist() == [macs_by_hand(kept, [TOKENS, later])] * 2


def test_masked_and_skipped_give_the_same_numbers(a_rig: Rig):
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        masked = a_rig.use(MASKED)(image)
        skipped = a_rig.use(NAMED["ours, keep 0.3"])(image)
        dense = a_rig.use(DENSE)(image)
    torch.testing.assert_close(masked, skipped, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(masked, dense, atol=1e-5)


def test_keep_one_is_the_dense_network_without_gathering(a_rig: Rig, monkeypatch: pytest.MonkeyPatch):
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    gathered = []

    def spy(*arguments: Any) -> Any:
        gathered.append(arguments)
        return ragged_layer(*arguments)

    monkeypatch.setattr("apformer.networks.transformer.ragged_layer", spy)
    with torch.inference_mode():
        assert torch.equal(a_rig.use(NAMED["ours, keep 1.0"])(image), a_rig.use(DENSE)(image))
        assert not gathered
        a_rig.use(NAMED["ours, keep 0.5"])(image)
    assert len(gathered) == SMALL["depth"]


def test_a_rig_comes_back_to_a_variant_after_all_others(a_rig: Rig):
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        first = [a_rig.use(variant)(image) for variant in VARIANTS]
        again = [a_rig.use(variant)(image) for variant in reversed(VARIANTS)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_the_rows_are_the_variants_with_the_dense_one_at_a_ratio_of_one(small_table: dict[str, Any]):
    assert [entry["variant"] for entry in small_table["rows"]] == [variant.name for variant in VARIANTS]
    dense, floor = row(small_table, DENSE.name), row(small_table, FLOOR.name)
    assert (dense["ratio"], dense["ratio_range"]) == (1.0, [1.0, 1.0])
    assert floor["convolutions"] == 1.0
    assert small_table["tokens"] == TOKENS
    for entry in small_table["rows"]:
        assert entry["seconds"] > 0
        assert entry["ratio_range"][0] <= entry["ratio"] <= entry["ratio_range"][1]


def test_macs_are_per_image_and_differ_by_what_was_pruned(small_table: dict[str, Any]):
    floor = row(small_table, FLOOR.name)["gmac"]
    transformer = {entry["variant"]: (entry["gmac"] - floor) * 1e9 for entry in small_table["rows"]}
    dense = macs_by_hand(TOKENS, [TOKENS, TOKENS])
    assert transformer[DENSE.name] == pytest.approx(dense, abs=1)
    assert transformer["ours, keep 1.0"] == pytest.approx(dense, abs=1)
    half, third = round(0.5 * TOKENS), round(0.3 * TOKENS)
    # A dependency gate multiplies every query with one vector of head_dim: queries x heads x head_dim, per layer.
    gates = SMALL["depth"] * SMALL["heads"] * SMALL["head_dim"]
    by_hand = macs_by_hand(half, [TOKENS, half]) + gates * half
    assert transformer["ours, keep 0.5"] == pytest.approx(by_hand, abs=1)
    by_hand = macs_by_hand(third, [TOKENS, TOKENS])
    assert transformer["ours, keep 0.3, queries only"] == pytest.approx(by_hand, abs=1)
    assert transformer[MASKED.name] == pytest.approx(dense + gates * TOKENS, abs=1)
    attention = row(small_table, DENSE.name)["gmac"] - row(small_table, DENSE.name)["gmac_without_attention"]
    assert attention * 1e9 == pytest.approx(SMALL["depth"] * 2 * TOKENS**2 * 8, abs=1)


def test_the_peak_is_what_a_fresh_process_took_for_one_pass(small_table: dict[str, Any]):
    assert 0 <= row(small_table, DENSE.name)["peak_bytes"] < 1 << 30
    assert row(small_table, FLOOR.name)["peak_bytes"] is None


def test_a_full_run_measures_the_published_network_and_one_in_3d():
    plan = pruning._plan(quick=False)
    assert [setting.shape for setting in plan.settings] == [(1, 1, 256, 256), (8, 1, 256, 256), (1, 1, 64, 64, 48)]
    assert set(plan.memory) == set(NAMED)


def test_the_text_states_how_kept_sets_were_made(small_table: dict[str, Any]):
    record: dict[str, Any] = {"quick": True, "tables": [small_table], "bundles": []}
    record["machine"] = {**pruning.describe_machine(), "busy": True, "load": 1.75}
    text = pruning.render(record)
    assert "Kept sets are prepared, not learned" in text
    assert "its numbers mean nothing" in text
    assert "load 1.75" in text
    assert all(variant.name in text for variant in VARIANTS)
    assert json.loads(json.dumps(record)) == record


def save_model(directory: Path, *, gates: dict[str, Any], patients: list[str]) -> Bundle:
    """A model of 64 x 64 pictures with random weights, whose prune head finds foreground in some of the tokens."""
    torch.manual_seed(0)
    network = APFormer(**SMALL, **gates)
    assert network.prune_head is not None
    with torch.no_grad():
        network.prune_head.weight.mul_(100)
        network.gating = "off"
        logits = network.eval()(torch.rand(1, 1, 64, 64), auxiliaries=True)[1].prune_logits
        if network.query_gate is not None:
            network.query_gate.threshold.copy_((logits[:, 1] - logits[:, 0]).median())
    anatomy = Code("SCT", "123037004", "Anatomical Structure")
    arguments = {**SMALL, **gates}
    return save_bundle(
        directory,
        name="square",
        version="1.0.0",
        description="Bright squares",
        modality="CT",
        channels=1,
        labels=[Label(3, "Square", (220, 80, 60), anatomy, anatomy)],
        preprocessing=Preprocessing(
            spatial_dims=2,
            orientation="LPS",
            spacing_mm=None,
            patch_size=(64, 64),
            intensity={"kind": "window", "lower": 0.0, "upper": 255.0},
        ),
        network_name="apformer",
        network_arguments={key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()},
        state_dict=network.state_dict(),
        card="# Squares\n",
        training={},
        metrics={"patients": patients},
        data_licence="CC0 1.0",
    )


@pytest.fixture
def a_dataset(tmp_path: Path) -> Path:
    """Four pictures of a bright square, of patients p1, p1, p10 and p2."""
    folder = tmp_path / "squares"
    generator = np.random.default_rng(0)
    listed = []
    for number, name in enumerate(["p1_a", "p1_b", "p10_a", "p2_a"]):
        label = np.zeros((64, 64), np.uint8)
        label[8 * number : 8 * number + 24, 16:40] = 3
        pixels = (generator.integers(0, 90, label.shape) + 150 * (label > 0)).astype(np.uint8)
        for kind, array in (("imagesTr", pixels), ("labelsTr", label)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / kind / f"{name}.png")
        listed.append({"image": f"imagesTr/{name}.png", "label": f"labelsTr/{name}.png"})
    (folder / "dataset.json").write_text(json.dumps({"training": listed}))
    return folder


OPEN_GATES = {**GATES, "safety_ring": 0}


def test_a_model_is_measured_on_its_validation_patients_with_gates_on_and_off(tmp_path: Path, a_dataset: Path):
    bundle = save_model(tmp_path / "model", gates=OPEN_GATES, patients=["p1"])
    measured = pruned_bundle.measure(str(bundle.directory), a_dataset, "cpu")
    assert (measured["cases"], measured["images"], measured["held_out"]) == (2, 2, True)  # p10 is another patient
    network = bundle.build_network()
    both, sizes, kept = {"off": 0, "hard": 0}, {"off": 0, "hard": 0}, []
    for name in ("p1_a", "p1_b"):
        pixels = np.asarray(Image.open(a_dataset / "imagesTr" / f"{name}.png"), np.float32) / 255
        label = np.asarray(Image.open(a_dataset / "labelsTr" / f"{name}.png")) > 0
        image = torch.from_numpy(pixels).half().float()[None, None]  # prepared cases are kept in half precision
        for gating in both:
            network.gating = gating
            with torch.inference_mode():
                logits, auxiliaries = network(image, auxiliaries=True)
            predicted = logits[0].argmax(0).numpy() > 0
            both[gating] += int((predicted & label).sum())
            sizes[gating] += int(predicted.sum()) + int(label.sum())
        kept.append(float(auxiliaries.kept.mean()))
    assert 0 < min(kept) < 1
    assert measured["kept_tokens"]["min"] == pytest.approx(min(kept))
    assert measured["kept_tokens"]["max"] == pytest.approx(max(kept))
    assert 0 < measured["transformer_macs"]["median"] < 1
    for name, gating in pruned_bundle.GATINGS.items():
        assert measured["dice"][name]["Square"] == pytest.approx(2 * both[gating] / sizes[gating], abs=1e-3)


def test_a_model_that_names_no_patients_is_measured_on_all_cases_and_says_so(tmp_path: Path, a_dataset: Path):
    bundle = save_model(tmp_path / "model", gates=OPEN_GATES, patients=[])
    record = pruning.run("cpu", bundle=str(bundle.directory), dataset=a_dataset)
    assert record["bundles"][0]["cases"] == 4
    assert record["tables"] == []
    assert "4 cases, NOT held out" in pruning.render(record)


def test_at_most_the_asked_number_of_images_is_measured(tmp_path: Path, a_dataset: Path):
    bundle = save_model(tmp_path / "model", gates=OPEN_GATES, patients=[])
    measured = pruned_bundle.measure(str(bundle.directory), a_dataset, "cpu", most_images=3)
    assert (measured["cases"], measured["images"]) == (4, 2)  # every second one


def test_a_data_set_without_the_models_patients_is_refused(tmp_path: Path, a_dataset: Path):
    bundle = save_model(tmp_path / "model", gates=OPEN_GATES, patients=["p3"])
    with pytest.raises(ConfigError, match="none of the validation patients"):
        pruned_bundle.measure(str(bundle.directory), a_dataset, "cpu")


def test_a_model_without_gates_is_refused(tmp_path: Path, a_dataset: Path):
    bundle = save_model(tmp_path / "model", gates={}, patients=["p1"])
    with pytest.raises(BundleError, match="does not prune"):
        pruned_bundle.measure(str(bundle.directory), a_dataset, "cpu")


@pytest.mark.parametrize("words", [["--bundle", "liver-ct"], ["--data", "somewhere"]])
def test_a_model_without_data_is_a_wrong_call(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["benchmark", "pruning", *words]) == 2
    assert "--bundle and --data" in capsys.readouterr().err


def test_the_command_prints_one_json_object(capsys: pytest.CaptureFixture[str]):
    assert main(["benchmark", "pruning", "--quick", "--json", "--device", "cpu"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [table["tokens"] for table in record["tables"]] == [64, 12]
    assert row(record["tables"][0], DENSE.name)["peak_bytes"] > 0


def test_the_threshold_for_a_share_keeps_that_share_on_average_ring_included():
    generator = torch.Generator().manual_seed(0)
    margins = [torch.randn(1, 20, 20, generator=generator) for _ in range(5)]
    for share in (0.7, 0.3, 0.0):
        threshold = find_threshold(margins, share, ring=1)
        kept = np.mean([float(dilate((margin > threshold).float(), 1).mean()) for margin in margins])
        assert share - 0.01 <= kept <= share or kept == pytest.approx(share)


def test_accuracy_against_cost_is_measured_from_dense_to_nothing_and_drawn(tmp_path: Path, a_dataset: Path):
    bundle = save_model(tmp_path / "model", gates=OPEN_GATES, patients=[])
    report = pareto.run(str(bundle.directory), a_dataset, "cpu", shares=(0.5, 0.25, 0.0))
    dense, shipped, *points = report["points"]
    assert dense["kept"] == 1.0 and dense["ratio"] == 1.0
    assert 0 < shipped["kept"] < 1
    assert [point["kept"] for point in points] == pytest.approx([0.5, 0.25, 0.0], abs=0.02)
    assert dense["gmac"] > points[0]["gmac"] > points[1]["gmac"] > points[2]["gmac"] > 0
    network = bundle.build_network()
    network.gating = "off"
    assert dense["gmac"] == pytest.approx(pruning.count_macs(network, (1, 1, 64, 64)).total / 1e9)
    assert "NOT held out" in pareto.render(report)
    pareto.draw(report, tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").size[0] > 400
