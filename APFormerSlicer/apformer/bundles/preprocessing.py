"""What a model expects of its input: orientation, spacing, tile size, intensities, and how its output is cleaned up.

It is data that the Segmenter and the training loop both follow, so an image is prepared the same way in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .fields import Fields, check_integer, check_number, malformed

ACQUIRED = "acquired"
LARGEST_PATCH = 4096  # voxels along one axis; beyond it no network here fits in memory
LARGEST_MM = 10_000.0
LARGEST_INTENSITY = 1e9
_AXES = ("RL", "AP", "SI")
_FIELDS = (
    "spatial_dims",
    "orientation",
    "spacing_mm",
    "patch_size",
    "intensity",
    "overlap",
    "largest_component",
    "one_piece_per_slice",
    "minimum_volume_ml",
    "field_of_view_mm",
)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes network input and how the output is cleaned; checked when made.

    Attributes:
        spatial_dims: 2 (the network sees slices) or 3 (it sees volumes).
        orientation: where axes i, j, k point ("LPS", "RAS", ...); or "acquired" (2D only): the stored in-plane axes
            are kept and the slices lie along the axis with the largest spacing, k on ties.
        spacing_mm: the spacing the network was trained at, mm: (i, j) in 2D, (i, j, k) in 3D; None keeps the stored
            spacing.
        patch_size: the network's tile in voxels: (j, i) in 2D, (k, j, i) in 3D.
        intensity: {"kind": "window", "lower", "upper"}: clip to these values, scale to 0..1; or
            {"kind": "percentile", "lower", "upper"}: clip at these percentiles, then zero mean and unit variance.
        overlap: the share of a tile that neighbouring tiles have in common, 0 <= overlap < 1.
        largest_component: keep only the largest connected piece of each label in a volume (not in a single slice).
        one_piece_per_slice: keep only the largest connected piece of each label in every slice (2D only).
        minimum_volume_ml: drop connected pieces smaller than this, mL; 0 keeps all.
        field_of_view_mm: the extent of the training images along i, j, k, mm; a larger input is warned about. None:
            no limit.

    Raises:
        BundleError: a value of the wrong type or out of range.
    """

    spatial_dims: int
    orientation: str
    spacing_mm: tuple[float, ...] | None
    patch_size: tuple[int, ...]
    intensity: dict[str, Any]
    overlap: float = 0.5
    largest_component: bool = False
    one_piece_per_slice: bool = False
    minimum_volume_ml: float = 0.0
    field_of_view_mm: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        check_integer(self.spatial_dims, 2, 3, "'spatial_dims'")
        self._check_orientation()
        if self.spacing_mm is not None:
            _check_lengths(self.spacing_mm, self.spatial_dims, "'spacing_mm'")
        if self.field_of_view_mm is not None:
            _check_lengths(self.field_of_view_mm, 3, "'field_of_view_mm'")
        if not isinstance(self.patch_size, tuple) or len(self.patch_size) != self.spatial_dims:
            raise malformed(f"'patch_size' must have {self.spatial_dims} whole numbers.")
        for size in self.patch_size:
            check_integer(size, 1, LARGEST_PATCH, "each number of 'patch_size'")
        _check_intensity(Fields(self.intensity, "'intensity'"))
        if check_number(self.overlap, 0.0, 1.0, "'overlap'") == 1.0:
            raise malformed("'overlap' must be below 1.")
        for name in ("largest_component", "one_piece_per_slice"):
            if not isinstance(getattr(self, name), bool):
                raise malformed(f"'{name}' must be true or false.")
        if self.one_piece_per_slice and self.spatial_dims != 2:
            raise malformed("'one_piece_per_slice' is for models of slices.")
        check_number(self.minimum_volume_ml, 0.0, 1e6, "'minimum_volume_ml'")

    def _check_orientation(self) -> None:
        code = self.orientation
        if code == ACQUIRED and self.spatial_dims == 2:
            return
        letters = code if isinstance(code, str) and len(code) == 3 else ""
        if not letters or any(sum(letter in axis for letter in letters) != 1 for axis in _AXES):
            allowed = "three directions such as LPS" + (f", or '{ACQUIRED}'" if self.spatial_dims == 2 else "")
            raise malformed(f"'orientation' must be {allowed}.")

    def as_dict(self) -> dict[str, Any]:
        """The settings as they stand in metadata.json."""
        return {
            "spatial_dims": self.spatial_dims,
            "orientation": self.orientation,
            "spacing_mm": list(self.spacing_mm) if self.spacing_mm is not None else None,
            "patch_size": list(self.patch_size),
            "intensity": dict(self.intensity),
            "overlap": self.overlap,
            "largest_component": self.largest_component,
            "one_piece_per_slice": self.one_piece_per_slice,
            "minimum_volume_ml": self.minimum_volume_ml,
            "field_of_view_mm": list(self.field_of_view_mm) if self.field_of_view_mm is not None else None,
        }

    @staticmethod
    def from_dict(data: object, where: str = "preprocessing") -> Preprocessing:
        """The settings that a JSON (or TOML) object describes; lists become tuples, defaults may be left out.

        Raises:
            BundleError: a field is missing, unknown, of the wrong type or out of range.
        """
        fields = Fields(data, where)
        fields.only(_FIELDS)
        for name in ("spatial_dims", "orientation", "patch_size", "intensity"):
            fields.value(name)
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.data.items()
        }
        return Preprocessing(**{"spacing_mm": None, **settings})


def _check_lengths(lengths: object, count: int, where: str) -> None:
    if not isinstance(lengths, tuple) or len(lengths) != count:
        raise malformed(f"{where} must have {count} numbers, in mm.")
    for length in lengths:
        if check_number(length, 0.0, LARGEST_MM, f"each number of {where}") < 1e-4:
            raise malformed(f"Each number of {where} must be above 0.")


def _check_intensity(fields: Fields) -> None:
    fields.only(("kind", "lower", "upper"))
    kind = fields.text("kind")
    if kind not in ("window", "percentile"):
        raise malformed(f"{fields.where}, 'kind' must be 'window' or 'percentile'.")
    lowest, highest = (0.0, 100.0) if kind == "percentile" else (-LARGEST_INTENSITY, LARGEST_INTENSITY)
    lower, upper = fields.number("lower", lowest, highest), fields.number("upper", lowest, highest)
    if lower >= upper:
        raise malformed(f"{fields.where}, 'lower' must be below 'upper'.")
