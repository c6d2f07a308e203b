"""Images that a user uploads: a real hippocampus on a turned grid, also as DICOM slices."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from apformer.demo.inputs import SIDES, read_template
from apformer.volume import Volume

TURN = 0.1  # radians about the patient's long axis


def a_crop() -> Volume:
    """The template's left hippocampus and what is around it: 40 x 56 x 40 voxels of 1 mm on a slightly oblique grid."""
    template = read_template()
    part = template.cropped(SIDES[0].roi(template))
    c, s = math.cos(TURN), math.sin(TURN)
    turn = np.array([[c, -s, 0.0, 4.5], [s, c, 0.0, -7.25], [0.0, 0.0, 1.0, 1 / 3], [0.0, 0.0, 0.0, 1.0]])
    return Volume(part.array, turn @ part.ijk_to_ras, "MR")


def write_slices(write_dicom: Callable[..., list[Path]], volume: Volume, folder: str, description: str) -> Path:
    """One MR series in a file per slice. `write_dicom` is the fixture, which gives slices their places."""
    import pydicom

    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.ijk_to_ras
    directions = lps[:3, :3] / volume.spacing_ijk
    across, down, _ = (float(step) for step in volume.spacing_ijk)
    files = write_dicom(
        folder,
        positions=[tuple((lps @ [0, 0, k, 1])[:3].round(6)) for k in range(len(volume.array))],
        orientation=(*directions[:, 0].round(9), *directions[:, 1].round(9)),
        shape=volume.array.shape[1:],
        spacing=(down, across),
        description=description,
    )
    voxels = np.round(volume.array / volume.array.max() * 4000).astype("<u2")
    for path in files:
        one = pydicom.dcmread(path)
        k = int(one.pixel_array[0, 0]) - 1
        one.Modality, one.RescaleIntercept, one.InstanceNumber = "MR", 0.0, k + 1
        one.PixelData = voxels[k].tobytes()
        one.save_as(path)
    return files[0].parent
