"""Choosing where to compute: names that are none, and devices that are not there."""

from __future__ import annotations

import pytest
import torch
from apformer.errors import DeviceError
from apformer.inference import choose_device


@pytest.mark.parametrize("text", ["gpu", "cuda:x", "cpu:1"])
def test_an_unknown_device_is_refused(text: str) -> None:
    with pytest.raises(DeviceError, match="is not a device"):
        choose_device(text)


@pytest.mark.parametrize(
    ("built", "count", "asked", "lacks", "remedy"),
    [
        (None, 0, "cuda", "built without CUDA", "torch with CUDA"),
        ("12.6", 0, "cuda:0", "no GPU of NVIDIA, or no driver", "nvidia-smi"),
        ("12.6", 2, "cuda:2", "cuda:0, cuda:1", "one of these"),
    ],
)
def test_a_cuda_device_that_is_absent_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, built: str | None, count: int, asked: str, lacks: str, remedy: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(DeviceError) as caught:
        choose_device(asked)
    assert asked in caught.value.what and lacks in caught.value.what and remedy in caught.value.remedy


@pytest.mark.skipif(torch.cuda.device_count() > 7, reason="this machine has the device asked for")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match="not there"):
        choose_device("cuda:7")
