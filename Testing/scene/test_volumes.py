"""Volume nodes become the engine's volumes with every voxel where the node has it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from apformer.errors import InputError
from apformer.files import read_volume, write_scalar
from apformer.jobs.arrays import array_fields
from apformer.jobs.image import Image
from apformer.volume import Source, Volume
from APFormerSlicerLib.scene import new_segmentation, to_volume
from APFormerSlicerLib.scene.geometry import matrix_array
from APFormerSlicerLib.scene.loading import new_volume_node, unload
from headless import VolumeMaker


def test_an_oblique_volume_keeps_its_voxels_and_its_place(a_volume_node: Any, an_image: Volume) -> None:
    volume = to_volume(a_volume_node)
    assert np.array_equal(volume.array, an_image.array)
    assert volume.array.dtype == np.int16
    assert np.allclose(volume.ijk_to_ras, an_image.ijk_to_ras, rtol=0, atol=1e-12)
    assert volume.modality is None
    assert volume.source.kind == "memory"


def test_reading_a_node_cannot_change_it(a_volume_node: Any) -> None:
    with pytest.raises(ValueError, match="read-only"):
        to_volume(a_volume_node).array[0, 0, 0] = 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.float32, np.float64])
def test_voxels_keep_their_type(make_volume_node: VolumeMaker, dtype: Any) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    volume = to_volume(make_volume_node(array))
    assert volume.array.dtype == dtype
    assert np.array_equal(volume.array, array)


def test_transforms_above_a_volume_are_applied_in_order(
    a_scene: Any, a_volume_node: Any, a_transform: Any, an_image: Volume
) -> None:
    shift = vtk.vtkTransform()
    shift.Translate(1, 2, 3)
    above = a_scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Above")
    above.SetMatrixTransformToParent(shift.GetMatrix())
    a_transform.SetAndObserveTransformNodeID(above.GetID())
    a_volume_node.SetAndObserveTransformNodeID(a_transform.GetID())
    turn = vtk.vtkMatrix4x4()
    a_transform.GetMatrixTransformToParent(turn)
    expected = matrix_array(shift.GetMatrix()) @ matrix_array(turn) @ an_image.ijk_to_ras
    assert np.allclose(to_volume(a_volume_node).ijk_to_ras, expected, rtol=0, atol=1e-9)


def test_a_transform_that_bends_space_is_refused(a_volume_node: Any, a_warp: Any) -> None:
    a_volume_node.SetAndObserveTransformNodeID(a_warp.GetID())
    with pytest.raises(InputError, match=r"CT is under Warp.*Harden"):
        to_volume(a_volume_node)


def test_a_cropped_image_whose_indices_do_not_begin_at_zero_stays_in_place(make_volume_node: VolumeMaker) -> None:
    matrix = np.diag([2.0, 3.0, 4.0, 1.0])
    node = make_volume_node(np.arange(24, dtype=np.int16).reshape(2, 3, 4), matrix)
    crop = vtk.vtkExtractVOI()
    crop.SetInputData(node.GetImageData())
    crop.SetVOI(1, 3, 1, 2, 1, 1)
    crop.Update()
    node.SetAndObserveImageData(crop.GetOutput())
    volume = to_volume(node)
    assert volume.array.tolist() == [[[17, 18, 19], [21, 22, 23]]]
    assert volume.ijk_to_ras[:3, 3].tolist() == [2.0, 3.0, 4.0]


def test_colours_become_channels(make_volume_node: VolumeMaker) -> None:
    colours = np.arange(1 * 2 * 3 * 3, dtype=np.uint8).reshape(1, 2, 3, 3)
    volume = to_volume(make_volume_node(colours, kind="vtkMRMLVectorVolumeNode"))
    assert volume.modality == "RGB"
    assert volume.array.shape == (3, 1, 2, 3)
    assert np.array_equal(volume.array[1], colours[..., 1])
    assert volume.source.kind == "picture"


def test_transparency_is_dropped(make_volume_node: VolumeMaker) -> None:
    colours = np.arange(2 * 2 * 3 * 4, dtype=np.uint8).reshape(2, 2, 3, 4)
    volume = to_volume(make_volume_node(colours, kind="vtkMRMLVectorVolumeNode"))
    assert np.array_equal(volume.array, np.moveaxis(colours[..., :3], -1, 0))
    assert volume.source.kind == "memory"  # a stack of colour slices has a size


def test_colours_that_are_all_gray_are_gray(make_volume_node: VolumeMaker) -> None:
    gray = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    volume = to_volume(make_volume_node(np.repeat(gray[..., None], 3, axis=3), kind="vtkMRMLVectorVolumeNode"))
    assert volume.modality is None
    assert np.array_equal(volume.array, gray)


def test_a_gray_picture_file_is_a_picture(make_volume_node: VolumeMaker, a_scene: Any) -> None:
    node = make_volume_node(np.arange(6, dtype=np.uint8).reshape(1, 2, 3))
    node.AddDefaultStorageNode()
    node.GetStorageNode().SetFileName("/data/Skin.PNG")
    assert to_volume(node).source.kind == "picture"


def test_displacements_are_no_colours(make_volume_node: VolumeMaker) -> None:
    node = make_volume_node(np.zeros((2, 2, 2, 3)), kind="vtkMRMLVectorVolumeNode")
    node.SetVoxelVectorType(slicer.vtkMRMLVolumeNode.VoxelVectorTypeSpatial)
    with pytest.raises(InputError, match="not red, green and blue"):
        to_volume(node)


def test_a_label_map_is_refused(make_volume_node: VolumeMaker) -> None:
    node = make_volume_node(np.zeros((2, 2, 2), np.uint8), name="Mask", kind="vtkMRMLLabelMapVolumeNode")
    with pytest.raises(InputError, match="Mask is a label map"):
        to_volume(node)


def test_what_is_no_volume_is_refused(a_scene: Any, a_transform: Any) -> None:
    with pytest.raises(InputError, match="No volume is chosen"):
        to_volume(None)
    with pytest.raises(InputError, match="Registration is not a volume"):
        to_volume(a_transform)


def test_a_volume_without_image_data_is_refused(a_scene: Any) -> None:
    node = a_scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    with pytest.raises(InputError, match="Empty has no image data"):
        to_volume(node)
    node.SetAndObserveImageData(vtk.vtkImageData())
    with pytest.raises(InputError, match="Empty has no image data"):
        to_volume(node)


def test_hounsfield_units_mean_ct(a_volume_node: Any) -> None:
    units = slicer.vtkCodedEntry()
    units.SetValueSchemeMeaning("[hnsf'U]", "UCUM", "Hounsfield unit")
    a_volume_node.SetVoxelValueUnits(units)
    assert to_volume(a_volume_node).modality == "CT"


def test_the_dicom_series_tells_modality_and_identity(a_scene: Any, a_volume_node: Any) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(a_scene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), a_volume_node)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "MR")
    hierarchy.SetItemUID(item, "DICOM", "1.2.3")
    volume = to_volume(a_volume_node)
    assert volume.modality == "MR"
    assert volume.source.series_uid == "1.2.3"


def test_a_scene_without_a_hierarchy_needs_none(a_volume_node: Any) -> None:
    bare = slicer.vtkMRMLScene()
    node = slicer.vtkMRMLScalarVolumeNode()
    node.CopyContent(a_volume_node)
    bare.AddNode(node)
    assert to_volume(node).modality is None
    assert bare.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode") is None


@pytest.mark.parametrize("in_colour", [False, True])
def test_a_volume_reaches_the_worker_unchanged(
    make_volume_node: VolumeMaker, tmp_path: Path, an_image: Volume, in_colour: bool
) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (1, 4, 5, 3)).astype(np.uint8)
    gray = make_volume_node(an_image.array, an_image.ijk_to_ras)
    sent = to_volume(make_volume_node(colours, kind="vtkMRMLVectorVolumeNode") if in_colour else gray)
    picture = sent.source.kind == "picture"
    fields = array_fields(tmp_path, sent.array, sent.ijk_to_ras, sent.modality, picture=picture)["array"]
    arrived = Image(Path(fields["file"]), None, fields["ijk_to_ras"], fields.get("modality"), fields["picture"]).read()
    assert np.array_equal(arrived.array, sent.array)
    assert np.array_equal(arrived.ijk_to_ras, sent.ijk_to_ras)
    assert (arrived.modality, arrived.source.kind) == (sent.modality, sent.source.kind)
    assert picture == in_colour


def test_what_the_file_of_a_volume_leaves_open_is_told_in_the_words_of_the_command_line(
    a_scene: Any, tmp_path: Path
) -> None:
    path = tmp_path / "head.nii"
    write_scalar(path, Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([-1.0, -1.0, 2.0, 1.0])))
    content = bytearray(path.read_bytes())
    content[252:256] = struct.pack("<hh", 1, 2)  # a qform of the scanner, and a sform that lies elsewhere
    content[280 + 12 : 280 + 16] = struct.pack("<f", 26.0)
    path.write_bytes(content)
    storage = a_scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(str(path))
    node = a_scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Head")
    assert storage.ReadData(node)
    node.SetAndObserveStorageNodeID(storage.GetID())

    volume = to_volume(node)

    assert volume.notes == read_volume(path).notes
    assert "differ by 0.0 degrees and 26.0 mm" in volume.notes[0]
    assert np.allclose(volume.ijk_to_ras, read_volume(path).ijk_to_ras, atol=1e-6)
    shifted = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(shifted)
    shifted.SetElement(0, 3, 5.0)
    node.SetIJKToRASMatrix(shifted)  # no longer where its file says
    assert to_volume(node).notes == ()


def test_an_image_that_the_engine_read_is_the_same_image_on_the_scene(a_scene: Any) -> None:
    flat = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    read = Volume(flat, np.diag([-1.0, -1.0, 1.0, 1.0]), None, Source(None, kind="picture"), ("its place is nominal",))
    back = to_volume(new_volume_node(a_scene, read, "slice"))
    assert (back.source.kind, back.notes) == ("picture", read.notes) and np.array_equal(back.array, flat)


def test_what_is_unloaded_leaves_nothing_behind(a_scene: Any, an_image: Volume) -> None:
    before = a_scene.GetNumberOfNodes()
    node = new_volume_node(a_scene, an_image, "CT")
    node.AddDefaultStorageNode("ct.nrrd")
    segmentation = new_segmentation(node)
    assert a_scene.GetNumberOfNodes() > before + 4  # with what shows and stores them
    unload([segmentation, node])
    assert a_scene.GetNumberOfNodes() == before
    unload([node])  # it is gone already
