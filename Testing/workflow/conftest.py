"""A workflow on slicer-core with a worker that plays events. Without slicer-core the folder is skipped."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

TESTING = Path(__file__).resolve().parents[1]
for folder in ("workflow", "scene", "engine"):
    sys.path.insert(0, str(TESTING / folder))  # pytest's importlib mode leaves it out

if TYPE_CHECKING:
    from apformer.bundles import ModelLibrary
    from APFormerSlicerLib.workflow import Choice, Workflow
    from headless import Host
    from workflow_samples import PlayedWorker


class _WithoutSlicer(pytest.Module):
    """A test file that cannot be imported here."""

    def collect(self) -> list[Any]:
        pytest.skip("slicer-core is not installed; it comes with the scene extra", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module | None:
    return None if find_spec("slicer") else _WithoutSlicer.from_parent(parent, path=module_path)


@pytest.fixture
def a_host() -> Iterator[Host]:
    import headless

    host = headless.start()
    yield host
    host.close()


@pytest.fixture
def a_scene(a_host: Host) -> Any:
    return a_host.scene


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from workflow_samples import save_models

    root = tmp_path_factory.mktemp("saved")
    save_models(root)
    return root


@pytest.fixture
def a_library(saved_models: Path, tmp_path: Path) -> ModelLibrary:
    """The models of `save_models` as those of the program, and an empty folder of the user's."""
    from apformer.bundles import ModelLibrary

    shutil.copytree(saved_models, tmp_path / "bundled")
    return ModelLibrary([tmp_path / "Modèles de l'usager", tmp_path / "bundled"])


@pytest.fixture
def a_worker(tmp_path: Path) -> PlayedWorker:
    from workflow_samples import PlayedWorker

    (tmp_path / "jobs").mkdir()
    return PlayedWorker(tmp_path / "jobs")


@pytest.fixture
def a_workflow(a_scene: Any, a_worker: PlayedWorker, a_library: ModelLibrary) -> Iterator[Workflow]:
    from APFormerSlicerLib.workflow import Workflow

    workflow = Workflow(a_scene, a_worker, a_library)
    yield workflow
    workflow.close()


@pytest.fixture
def make_volume_node(a_scene: Any) -> Callable[..., Any]:
    """Adds a volume node with the array, (k, j, i) or (k, j, i, components)."""
    from headless import add_volume

    def make(array: np.ndarray, name: str = "MR", kind: str = "vtkMRMLScalarVolumeNode") -> Any:
        node = add_volume(a_scene, array, name, kind)
        node.SetSpacing(1.0, 1.0, 2.0)
        return node

    return make


@pytest.fixture
def a_volume_node(make_volume_node: Callable[..., Any]) -> Any:
    """5 x 6 x 7 voxels (k, j, i) of noise, of which nothing says what it is, named MR."""
    return make_volume_node(np.random.default_rng(0).integers(0, 1000, (5, 6, 7)).astype(np.int16))


@pytest.fixture
def a_choice(a_volume_node: Any) -> Choice:
    from APFormerSlicerLib.workflow import Choice

    return Choice(a_volume_node, "slices")
