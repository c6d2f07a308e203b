"""NIfTI's two answers to "where is this voxel", qform and sform: which one holds, both written back as they were.

ITK's choice is taken, so that Slicer shows image and mask in one place: the sform when it says scanner coordinates,
when there is no qform, or when both agree; else the qform; directions from the form, lengths from `pixdim`
(SetImageIOOrientationFromNIfTI in itkNiftiImageIO.cxx of ITK 5.4). The forms are those of nifti1.h, methods 1 to 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..checks import check_geometry
from .formats import bad_spacing

_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}  # metres, millimetres, micrometres
_SCANNER = 1
_ORTHONORMAL = 1e-4  # ITK's bound for a sform that it trusts
_SAME_FORM = 1e-4  # as above, for two forms that agree
_SAME_LENGTH = 1e-3  # relative: a third of a millimetre over the length of a body's section


@dataclass(frozen=True)
class NiftiForms:
    """The fields of a header that place its voxels, as they were read: what names and units are, nifti1.h says.

    `srow` is the sform row by row; `pixdim` begins with the handedness of the qform.
    """

    dimensions: int
    qform_code: int
    sform_code: int
    quatern: tuple[float, ...]
    qoffset: tuple[float, ...]
    srow: tuple[float, ...]
    pixdim: tuple[float, ...]
    xyzt_units: int

    @classmethod
    def of(cls, header: np.void) -> NiftiForms:
        def numbers(name: str) -> tuple[float, ...]:
            return tuple(float(number) for number in np.array(header[name]).ravel())

        return cls(
            dimensions=int(header["dim"][0]),
            qform_code=int(header["qform_code"]),
            sform_code=int(header["sform_code"]),
            quatern=numbers("quatern"),
            qoffset=numbers("qoffset"),
            srow=numbers("srow"),
            pixdim=numbers("pixdim"),
            xyzt_units=int(header["xyzt_units"]),
        )

    def write_to(self, header: np.ndarray) -> None:
        """Put them back into the header of a volume, whose axes in time are gone."""
        n = min(3, self.dimensions)
        header["qform_code"], header["sform_code"] = self.qform_code, self.sform_code
        header["quatern"], header["qoffset"] = self.quatern, self.qoffset
        header["srow"] = np.reshape(self.srow, (3, 4))
        header["pixdim"][: n + 1] = self.pixdim[: n + 1]
        header["xyzt_units"] = self.xyzt_units

    def place(self, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
        """4x4, (i, j, k) to RAS in mm, and what to tell the user.

        Raises:
            InputError: lengths that are not positive, axes that are singular or sheared.
        """
        spacing, n = np.ones(3), min(self.dimensions, 3)
        spacing[:n] = self.pixdim[1 : n + 1]
        if not np.all(np.isfinite(spacing)) or np.any(spacing <= 0):
            raise bad_spacing(path, tuple(float(step) for step in spacing))
        qform = self._qform(spacing) if self.qform_code > 0 else None
        sform = np.vstack([np.reshape(self.srow, (3, 4)), [0, 0, 0, 1]]) if self.sform_code > 0 else None
        if sform is not None and (qform is None or _sform_holds(sform, qform, self.sform_code)):
            matrix, notes = _with_lengths(sform, spacing, path)
        elif qform is not None:
            matrix, notes = qform, []
        else:
            matrix = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
            notes = ["the header gives no orientation; i, j, k were taken to run to the patient's left, back and head"]
        check_geometry(matrix, str(path))
        if qform is not None and sform is not None:
            notes += _disagreement(qform, sform, used="qform" if matrix is qform else "sform")
        matrix = matrix.copy()
        matrix[:3] *= _MM_PER_UNIT.get(self.xyzt_units & 7, 1.0)
        return matrix, tuple(f"{path.name}: {note}" for note in notes)

    def _qform(self, spacing: np.ndarray) -> np.ndarray:
        matrix = np.eye(4)
        handedness = -1.0 if self.pixdim[0] < 0 else 1.0
        matrix[:3, :3] = rotation_of(np.array(self.quatern)) * (spacing * [1.0, 1.0, handedness])
        matrix[:3, 3] = self.qoffset
        return matrix


def _sform_holds(sform: np.ndarray, qform: np.ndarray, sform_code: int) -> bool:
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    if not np.all(np.isfinite(sform)) or np.any(lengths <= 0):
        return False
    rotation = sform[:3, :3] / lengths
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > _ORTHONORMAL:
        return False
    return sform_code == _SCANNER or bool(np.allclose(sform, qform, rtol=0, atol=_SAME_FORM))


def _with_lengths(sform: np.ndarray, spacing: np.ndarray, path: Path) -> tuple[np.ndarray, list[str]]:
    """The sform's directions with the lengths of `pixdim`; to the bit as it is where they agree."""
    check_geometry(sform, str(path))
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    if np.all(np.abs(lengths - spacing) <= _SAME_LENGTH * spacing):
        return sform, []
    matrix = sform.copy()
    matrix[:3, :3] *= spacing / lengths
    note = (
        f"the header gives two voxel sizes, {_mm(spacing)} (pixdim) and {_mm(lengths)} (sform); pixdim was used, "
        "as Slicer does"
    )
    return matrix, [note]


def _disagreement(qform: np.ndarray, sform: np.ndarray, used: str) -> list[str]:
    """Words for two forms that lie apart."""
    if np.allclose(qform, sform, rtol=0, atol=10 * _SAME_FORM):
        return []
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    apart = float(np.linalg.norm(qform[:3, 3] - sform[:3, 3]))
    turned = "by more than can be said"
    if np.all(np.isfinite(sform)) and np.all(lengths > 0):
        turn = (qform[:3, :3] / np.linalg.norm(qform[:3, :3], axis=0)).T @ (sform[:3, :3] / lengths)
        turned = f"by {math.degrees(math.acos(float(np.clip((np.trace(turn) - 1) / 2, -1, 1)))):.1f} degrees"
    return [
        f"the header gives two places that differ {turned} and {apart:.1f} mm (qform and sform); the {used} was used, "
        "as Slicer does"
    ]


def _mm(lengths: np.ndarray) -> str:
    return " x ".join(f"{length:g}" for length in lengths) + " mm"


def rotation_of(bcd: np.ndarray) -> np.ndarray:
    """3x3 from the vector part of a unit quaternion."""
    rest = 1.0 - float(bcd @ bcd)
    if rest < 1e-7:  # float32 rounding of a half turn, where the reference library too takes a = 0
        bcd, rest = bcd / np.linalg.norm(bcd), 0.0
    a, (b, c, d) = math.sqrt(rest), bcd
    return np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ])  # fmt: skip


def quaternion_of(rotation: np.ndarray) -> np.ndarray:
    """(b, c, d) with a >= 0 of a proper rotation: the dominant eigenvector of Bar-Itzhack's symmetric 4x4 matrix."""
    r = rotation
    k = np.array([
        [r[0, 0] + r[1, 1] + r[2, 2], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]],
        [r[2, 1] - r[1, 2], r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0]],
        [r[0, 2] - r[2, 0], r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1]],
        [r[1, 0] - r[0, 1], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1]],
    ])  # fmt: skip
    a, *bcd = np.linalg.eigh(k)[1][:, -1]
    return np.array(bcd) * (-1.0 if a < 0 else 1.0)
