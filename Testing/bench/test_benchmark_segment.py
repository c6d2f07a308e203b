"""`apformer benchmark segment`: what it measures is what it says. No test asserts a wall-clock time."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apformer.benchmarks import segment
from apformer.benchmarks.memory import peak_memory_bytes
from apformer.benchmarks.phantom import body_phantom, write_uncompressed
from apformer.benchmarks.process import run_apart
from apformer.errors import APFormerError, BundleError, ConfigError
from apformer.files import read_volume

MIB = 1 << 20
HERE = "measured_functions"  # the module beside this file


@pytest.fixture(scope="module")
def quick_record() -> dict[str, Any]:
    """One quick run with an untrained network, for all tests that look at a record."""
    pytest.importorskip("monai", reason="the comparison needs MONAI")
    pytest.importorskip("einops", reason="MONAI's transformers need einops")
    return segment.run(quick=True, untrained=True, device="cpu")


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a fresh process import the functions beside this file."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.mark.usefixtures("run_here")
def test_the_peak_of_a_fresh_process_counts_what_it_held_and_not_what_its_parent_holds():
    parent = np.ones(500 * MIB, np.uint8)
    small = run_apart(f"{HERE}:hold", {"mebibytes": 1}).peak_bytes
    large = run_apart(f"{HERE}:hold", {"mebibytes": 200}).peak_bytes
    assert parent[-1] == 1
    assert 150 * MIB < large - small < 250 * MIB
    assert large < 400 * MIB < 500 * MIB < peak_memory_bytes()


def test_the_peak_never_falls():
    before = peak_memory_bytes()
    block = np.ones(200 * MIB, np.uint8)
    during = peak_memory_bytes()
    del block
    assert during >= before
    assert peak_memory_bytes() >= during > 200 * MIB


@pytest.mark.usefixtures("run_here")
def test_what_a_measured_function_prints_does_not_disturb_its_answer():
    apart = run_apart(f"{HERE}:chatter", {"answer": "é"})
    assert apart.value == "é"
    assert apart.seconds > 0


@pytest.mark.usefixtures("run_here")
def test_an_error_in_the_measured_process_arrives_with_its_three_parts():
    with pytest.raises(APFormerError) as caught:
        run_apart(f"{HERE}:refuse", {})
    assert caught.value.as_dict() == {"what": "It broke.", "meaning": "There is no result.", "remedy": "Mend it."}


@pytest.mark.usefixtures("run_here")
def test_a_crash_of_the_measured_process_is_told_with_the_end_of_its_log():
    with pytest.raises(APFormerError, match="RuntimeError: some bug"):
        run_apart(f"{HERE}:crash", {})


def test_the_phantom_is_a_ct_of_the_stated_size_with_air_fat_and_organs():
    phantom = body_phantom(slices=13, size=64, slice_mm=20.0)
    assert phantom.spatial_shape == (13, 64, 64)
    assert phantom.array.dtype == np.int16
    assert phantom.spacing_ijk == pytest.approx((6.4, 6.4, 20.0))
    assert (phantom.orientation, phantom.modality) == ("LPS", "CT")
    middle = phantom.array[6]
    assert middle[0].mean() == pytest.approx(-1000, abs=10)
    liver = middle[28:32, 19:23]  # to the patient's right, which is where i is small
    assert liver.mean() == pytest.approx(110, abs=20)
    assert phantom.array[12, 28:34, 19:22].mean() == pytest.approx(-850, abs=20)  # lung, 120 mm higher


def test_the_phantom_is_the_same_every_time():
    assert np.array_equal(body_phantom(2, 32).array, body_phantom(2, 32).array)


@pytest.mark.parametrize("suffix", [".nii", ".mha"])
def test_a_written_phantom_is_read_back_as_it_was(tmp_path: Path, suffix: str):
    phantom = body_phantom(3, 32)
    write_uncompressed(tmp_path / f"ct{suffix}", phantom)
    back = read_volume(tmp_path / f"ct{suffix}").oriented("LPS")
    assert np.array_equal(back.array, phantom.array)
    np.testing.assert_allclose(back.ijk_to_ras, phantom.ijk_to_ras, atol=1e-3)


def test_rounds_are_interleaved_and_the_first_does_not_count():
    from apformer.benchmarks.comparison import interleaved_seconds

    calls: list[str] = []
    seconds = interleaved_seconds({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_a_comparison_gives_counts_by_hand_and_the_baseline_a_ratio_of_one():
    from apformer.benchmarks.comparison import BASELINE, Contender, compare

    entrants = [
        Contender("wide", "1 to 2 channels, 3 x 3", lambda size: torch.nn.Conv2d(1, 2, 3, padding=1)),
        Contender(BASELINE, "1 to 1 channel, 1 x 1", lambda size: torch.nn.Conv2d(1, 1, 1)),
    ]
    compared = compare(entrants, size=16, rounds=3)
    wide, base = compared["rows"]
    assert compared["precision"] == "float32"
    assert (wide["parameters"], base["parameters"]) == (2 * 9 + 2, 2)
    assert (wide["gmac"], base["gmac"]) == (pytest.approx(16 * 16 * 18 / 1e9), pytest.approx(16 * 16 / 1e9))
    assert base["ratio"] == 1.0
    assert base["ratio_range"] == [1.0, 1.0]
    assert wide["ratio_range"][0] <= wide["ratio"] <= wide["ratio_range"][1]


def test_a_missing_model_is_an_error_that_names_the_way_without_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pytest.importorskip("monai", reason="the comparison needs MONAI")
    pytest.importorskip("einops", reason="MONAI's transformers need einops")
    monkeypatch.setenv("APFORMER_MODELS", str(tmp_path))
    with pytest.raises(BundleError, match="--untrained"):
        segment.run("no-such-model", quick=True)


@pytest.mark.parametrize("package", ["monai.networks.nets", "einops"])
def test_a_missing_package_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch, package: str):
    from apformer.benchmarks.comparison import contenders

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"pip install monai einops"):
        contenders()


def test_a_record_holds_machine_volumes_cold_start_and_all_networks(quick_record: dict[str, Any]):
    assert quick_record["machine"]["torch"] == torch.__version__
    assert quick_record["machine"]["cores"] >= 1
    (volume,) = quick_record["volumes"]
    assert volume["size"] == [48, 48, 2]
    assert set(volume["steps"]) == {"import", "load", "read", "segment", "write"}
    assert 0.1 < volume["peak_gib"] < 4
    assert volume["seconds"] >= sum(volume["steps"].values())
    assert volume["device"].startswith("cpu")
    assert quick_record["cold_start"]["seconds"] >= sum(quick_record["cold_start"]["steps"].values())
    (comparison,) = quick_record["networks"]
    names = [row["network"] for row in comparison["rows"]]
    assert names == ["APFormer", "MONAI UNet", "MONAI DynUNet", "MONAI UNETR", "MONAI SwinUNETR"]


def test_only_transformers_spend_on_attention(quick_record: dict[str, Any]):
    spent = {row["network"]: row["gmac"] - row["gmac_without_attention"] for row in quick_record["networks"][0]["rows"]}
    assert {name for name, gmac in spent.items() if gmac > 0} == {"APFormer", "MONAI UNETR", "MONAI SwinUNETR"}
    tokens = (128 // 16) ** 2
    assert spent["MONAI UNETR"] == pytest.approx(12 * 2 * tokens**2 * 768 / 1e9)  # layers, products, tokens, width


def test_a_record_is_json(quick_record: dict[str, Any]):
    assert json.loads(json.dumps(quick_record)) == quick_record


def test_the_report_states_machine_model_baseline_and_what_to_doubt(quick_record: dict[str, Any]):
    text = segment.render({**quick_record, "machine": {**quick_record["machine"], "busy": True, "load": 1.75}})
    assert quick_record["machine"]["cpu"] in text
    assert "untrained network" in text
    assert "its numbers mean nothing" in text
    assert "load 1.75" in text
    assert "ratio to MONAI UNet" in text
    for row in quick_record["networks"][0]["rows"]:
        assert f"{row['network']}: {row['settings']}." in text


def test_a_full_run_asks_for_the_sizes_of_the_published_figures():
    assert segment.Plan() == segment.Plan(size=512, slices=78, long_slices=None, network_size=256)
