"""A scene on slicer-core, and the nouns the tests speak of. Without slicer-core the folder is skipped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves it out

if TYPE_CHECKING:
    from apformer.bundles.labels import Label
    from apformer.volume import Volume
    from APFormerSlicerLib.scene import Provenance, Result
    from headless import Host, VolumeMaker


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


@pytest.fixture
def make_volume_node(a_scene: Any) -> VolumeMaker:
    """Adds a volume node with the array, (k, j, i) or (k, j, i, components), and the ijkToRAS matrix."""
    import vtk
    from headless import add_volume

    def make(
        array: np.ndarray, ijk_to_ras: np.ndarray | None = None, name: str = "CT", kind: str = "vtkMRMLScalarVolumeNode"
    ) -> Any:
        node = add_volume(a_scene, array, name, kind)
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy((np.eye(4) if ijk_to_ras is None else ijk_to_ras).ravel().tolist())
        node.SetIJKToRASMatrix(matrix)
        return node

    return make


@pytest.fixture
def a_volume_node(make_volume_node: VolumeMaker, an_image: Volume) -> Any:
    """`an_image`, oblique and anisotropic, as a node named CT."""
    return make_volume_node(an_image.array, an_image.ijk_to_ras)


@pytest.fixture
def a_transform(a_scene: Any) -> Any:
    """A turn of 30 degrees about S and a shift, as a linear transform node that nothing is under yet."""
    import vtk

    turn = vtk.vtkTransform()
    turn.Translate(10, -20, 30)
    turn.RotateZ(30)
    node = a_scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Registration")
    node.SetMatrixTransformToParent(turn.GetMatrix())
    return node


@pytest.fixture
def a_warp(a_scene: Any) -> Any:
    """A transform that bends space."""
    import vtk

    grid = vtk.vtkImageData()
    grid.SetDimensions(3, 3, 3)
    grid.SetSpacing(100, 100, 100)
    grid.SetOrigin(-100, -100, -100)
    grid.AllocateScalars(vtk.VTK_DOUBLE, 3)
    grid.GetPointData().GetScalars().Fill(0)
    grid.SetScalarComponentFromDouble(1, 1, 1, 0, 5.0)
    warp = vtk.vtkGridTransform()
    warp.SetDisplacementGridData(grid)
    node = a_scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Warp")
    node.SetAndObserveTransformToParent(warp)
    return node


@pytest.fixture
def a_provenance() -> Provenance:
    from APFormerSlicerLib.scene import Provenance

    return Provenance(
        model="liver-ct",
        model_version="1.1.0",
        model_checksum="ab" * 32,
        program="APFormerSlicer 0.1.0",
        device="cpu (Müller's laptop | 8 cores)",
        date="2026-01-02T03:04:05+01:00",
        parameters={"roi": "0:2,0:3,0:4", "note": "a|b"},
    )


@pytest.fixture
def a_result(a_label_map: Volume, two_labels: tuple[Label, Label], a_provenance: Provenance) -> Result:
    """Liver in a block and left kidney in one voxel of `a_volume_node`'s grid."""
    from APFormerSlicerLib.scene import Result

    return Result(a_label_map.array, two_labels, a_provenance)
