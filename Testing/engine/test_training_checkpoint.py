"""A checkpoint comes back as it was, to the bit and to the place in memory; what is none does no harm."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from apformer.errors import OutputError
from safetensors.torch import save

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")
from apformer.training.checkpoint import CHECKPOINT, _digest, has_checkpoint, load_checkpoint, save_checkpoint
from apformer.training.config import parse_config
from training_samples import a_trainer, settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def a_state() -> dict[str, Any]:
    flat = torch.arange(120, dtype=torch.float32).reshape(2, 3, 4, 5)
    return {
        "weights": {"a": flat.to(memory_format=torch.channels_last), "b": torch.tensor(3), "none": torch.zeros(0, 4)},
        "moments": {0: {"step": torch.tensor(2.0)}, 7: {"half": torch.tensor([0.1, -0.0], dtype=torch.bfloat16)}},
        "shared": [flat[0], flat[0]],
        "exact": [0.1, 1e-310, 2**53 + 1, -0.0, float("inf"), None, True, "Schädel \ud800"],
        "pair": (1, [2, ()]),
    }


def same(one: Any, other: Any) -> bool:
    """Equal in kind, value and, for tensors, place in memory."""
    if isinstance(one, torch.Tensor):
        bits = [each.contiguous().reshape(-1).view(torch.uint8).tolist() for each in (one, other)]
        return bits[0] == bits[1] and (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def test_a_state_comes_back_to_the_bit_with_its_kinds_and_its_order_in_memory(
    a_state: dict[str, Any], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, a_state, [{"epoch": 1}])
    assert has_checkpoint(tmp_path)
    assert same(load_checkpoint(tmp_path), a_state)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, "log.jsonl"]


def test_what_has_no_place_in_it_is_refused_when_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="set has no place"):
        save_checkpoint(tmp_path, {"a": {1}}, [])
    assert list(tmp_path.iterdir()) == []


def test_every_flipped_bit_and_every_cut_is_noticed(a_state: dict[str, Any], tmp_path: Path) -> None:
    save_checkpoint(tmp_path, a_state, [])
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        try:
            read = load_checkpoint(tmp_path)
        except OutputError as error:
            assert str(path) in error.what
        else:
            assert same(read, a_state), "padding only"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(OutputError, match="cannot be read"):
            load_checkpoint(tmp_path)


def forged(state: str, tensors: dict[str, torch.Tensor] | None = None) -> bytes:
    tensors = tensors or {}
    return save(tensors, {"state": state, "sha256": _digest(state, tensors)})


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"a": 1}),
        b"\x00" * 8,
        (2**63).to_bytes(8, "little") + b"{}",
        b"\x02\0\0\0\0\0\0\0{}",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        save({}, {"state": "{}"}),
        forged("[]"),
        forged("7"),
        forged("{}"),
        forged("[" * 100_000),
        forged('{"tensor": "0", "order": [0]}'),
        forged('{"tensor": "0", "order": [5, 5]}', {"0": torch.zeros(2, 2)}),
        forged('{"items": [[[1], 2]]}'),
        forged('{"items": 3}'),
    ],
    ids=range(14),
)
def test_a_file_made_on_purpose_is_refused_in_words(content: bytes, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(OutputError, match="cannot be read") as caught:
        load_checkpoint(tmp_path)
    assert "delete it" in caught.value.remedy


def test_a_file_larger_than_the_free_memory_is_not_read(
    a_state: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, a_state, [])
    monkeypatch.setattr("apformer.training.checkpoint.free_system_memory", lambda: 1000)
    with pytest.raises(OutputError, match="larger than the memory that is free"):
        load_checkpoint(tmp_path)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a part is missing": lambda state: state.pop("ema"),
    "a weight is missing": lambda state: state["network"].popitem(),
    "a weight has another shape": lambda state: state["network"].update({"head.bias": torch.zeros(9)}),
    "a weight has another type": lambda state: state["selection"]["weights"].update(
        {"head.bias": torch.zeros(2, dtype=torch.int64)}
    ),
    "a moment has another shape": lambda state: state["optimiser"][0].update(exp_avg=torch.zeros(1)),
    "a moment of no weight": lambda state: state["optimiser"].update({10**6: state["optimiser"][0]}),
    "an epoch that cannot be": lambda state: state.update(epoch=-1),
    "an average that is none": lambda state: state["tail"].update(count="x"),
    "a place of another schedule": lambda state: state["schedule"].update(stretches=7),
    "a text for a number": lambda state: state.update(step="many"),
    "rows that are none": lambda state: state.update(rows="["),
    "weights that are a list": lambda state: state.update(network=[1]),
}


def test_a_whole_file_whose_state_does_not_fit_the_training_is_refused_in_words(
    a_dataset: Path, tmp_path: Path
) -> None:
    config = parse_config(settings(stages=[{**settings()["stages"][0], "epochs": 1, "validate_every": 1}]))
    trainer = a_trainer(a_dataset, config, tmp_path / "run")
    trainer.run()
    for change in CHANGES.values():
        state = load_checkpoint(tmp_path / "run")
        change(state)
        (tmp_path / "changed").mkdir(exist_ok=True)
        save_checkpoint(tmp_path / "changed", state, [])
        trainer.run_folder = tmp_path / "changed"
        with pytest.raises(OutputError, match="cannot be read"):
            trainer.resume()
    trainer.run_folder = tmp_path / "run"
    trainer.resume()
    assert trainer.epoch == 1


# ------------------------------------------------------------------ nothing that is read is run

_NAMES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
_CALLS = {"torch.load", "torch.save", "yaml.load", "torch.jit.load", "pandas.read_pickle"}


def runs_what_it_reads(tree: ast.AST) -> list[str]:
    """Imports and calls in a syntax tree that execute what a file or text holds."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            found += [name for name in (module, *(alias.name for alias in node.names)) if name.split(".")[0] in _NAMES]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in _CALLS or called in ("eval", "exec") or called.split(".")[0] in _NAMES:
            found.append(called)
        found += [
            f"{called}({word.arg})"
            for word in node.keywords
            if word.arg == "allow_pickle" and ast.unparse(word.value) != "False"
        ]
    return found


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path, weights_only=True)",
        "yaml.load(text)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
    ],
)
def test_code_that_runs_what_it_reads_is_found(line: str) -> None:
    assert runs_what_it_reads(ast.parse(line))


def test_no_file_of_the_program_runs_what_it_reads() -> None:
    files = [ROOT / "run.py", *(ROOT / "APFormerSlicer").rglob("*.py")]
    assert len(files) > 200
    found = {
        path.relative_to(ROOT).as_posix(): runs_what_it_reads(ast.parse(path.read_text("utf-8"))) for path in files
    }
    assert {path: names for path, names in found.items() if names} == {}
