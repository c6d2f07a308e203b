"""The real worker process behind the workflow: a segmentation, a death that is told, a fresh start."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apformer.bundles import ModelLibrary
from APFormerSlicerLib.scene import to_label_map, to_volume
from APFormerSlicerLib.scene.provenance import of_node
from APFormerSlicerLib.workflow import HeadlessWorker, Workflow
from bundle_samples import LABELS
from job_samples import LONG


@pytest.fixture
def a_real_worker(tmp_path: Path) -> Iterator[HeadlessWorker]:
    with HeadlessWorker(tmp_path / "Protokolle 脳") as worker:
        yield worker


def test_a_volume_is_segmented_by_the_worker_process(
    a_scene: Any, a_real_worker: HeadlessWorker, a_library: ModelLibrary, a_volume_node: Any
) -> None:
    workflow = Workflow(a_scene, a_real_worker, a_library)
    workflow.state.volume, workflow.state.model, workflow.state.device = a_volume_node, "slices", "cpu"
    estimate = a_real_worker.wait(workflow.segmenting.estimate(workflow.choice()), LONG).outcome
    assert estimate.ok and estimate.line.startswith("CPU")
    heard: list[float] = []
    run = workflow.segment(maps=("uncertainty", "kept_tokens"))
    run.changed.connect(lambda run: heard.append(run.fraction))
    a_real_worker.wait(run, LONG)
    assert run.status == "done" and heard == sorted(heard) and run.lines == []
    written = run.outcome.written
    assert of_node(written.segmentation_node).model == "slices"
    assert workflow.reviewing.maps(written.segmentation_node) == ["uncertainty", "kept_tokens"]
    doubt = to_volume(workflow.reviewing.map_node(written.segmentation_node, "uncertainty"))
    assert float(doubt.array.min()) >= 0 and float(doubt.array.max()) <= 1
    assert isinstance(workflow.reviewing.places(written.segmentation_node), list)
    labels = to_label_map(written.segmentation_node, a_volume_node, LABELS)
    assert labels.array.shape == (5, 6, 7)
    volumes = {label.name: (labels.array == label.value).sum() * 2 / 1000 for label in LABELS}
    assert run.outcome.volumes_ml == pytest.approx(volumes)
    assert workflow.state.segmentation is written.segmentation_node
    workflow.close()


def test_a_gpu_that_is_gone_is_told_before_and_after_and_the_cpu_does_it(
    a_scene: Any, a_real_worker: HeadlessWorker, a_library: ModelLibrary, a_volume_node: Any
) -> None:
    workflow = Workflow(a_scene, a_real_worker, a_library)
    workflow.state.volume, workflow.state.model, workflow.state.device = a_volume_node, "slices", "cuda:99"
    estimate = a_real_worker.wait(workflow.segmenting.estimate(workflow.choice()), LONG).outcome
    assert not estimate.ok and "cuda:99" in estimate.line
    run = a_real_worker.wait(workflow.segment(), LONG)
    assert run.status == "failed" and "cuda:99" in run.error.what and run.error.remedy
    workflow.state.device = "cpu"
    assert a_real_worker.wait(workflow.segment(), LONG).status == "done"
    workflow.close()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_a_killed_worker_is_told_and_replaced(
    a_scene: Any, a_real_worker: HeadlessWorker, a_library: ModelLibrary, a_volume_node: Any
) -> None:
    workflow = Workflow(a_scene, a_real_worker, a_library)
    run = workflow.segment(a_volume_node, model="slices", device="cpu", maps=())
    end = time.monotonic() + LONG
    while run.status != "running" and time.monotonic() < end:
        a_real_worker.deliver(0.1)
    os.kill(a_real_worker.jobs._talk.worker["pid"], signal.SIGKILL)
    a_real_worker.wait(run, LONG)
    assert run.status == "failed" and "SIGKILL" in run.error.what and run.error.remedy
    again = a_real_worker.wait(workflow.segment(a_volume_node, model="slices", device="cpu", maps=()), LONG)
    assert again.status == "done"
    workflow.close()
