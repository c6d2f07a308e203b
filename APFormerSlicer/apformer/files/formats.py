"""Which format a path names, and the checks every file passes before it is parsed."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError

IMAGE_SUFFIXES = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".png", ".jpg", ".jpeg")
LABEL_SUFFIXES = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha", ".dcm", ".png")
SCALAR_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".png")


def suffix_of(path: Path | str) -> str:
    """The format suffix in lower case, such as ".nii.gz" or ".seg.nrrd"; the plain suffix when it is not known."""
    name = Path(path).name.lower()
    return next((suffix for suffix in IMAGE_SUFFIXES if name.endswith(suffix)), Path(name).suffix)


def require_file(path: Path) -> None:
    """Raises InputError when `path` is missing, not a file, empty, or may not be read."""
    try:
        if not path.exists():
            raise InputError(
                f"{path} does not exist.", "There is nothing to read.", "Check the path and the spelling of the name."
            )
        if not path.is_file():
            raise InputError(
                f"{path} is not a file.", "An image was expected there.", "Name an image file, or a DICOM folder."
            )
        with path.open("rb") as stream:
            if not stream.read(1):
                raise InputError(
                    f"{path} is an empty file (0 bytes).",
                    "The image was not written completely.",
                    "Export or copy it again.",
                )
    except OSError as error:
        raise unopened(path, error) from error


def unopened(path: Path, error: OSError) -> InputError:
    """The error for a file that the system does not let be read."""
    return InputError(
        f"{path} could not be opened: {error.strerror or error}.",
        "Its content is not known.",
        "Check the permissions of the file and its folders.",
    )


def damaged(path: Path, reason: str) -> InputError:
    """The error for a file that cannot be decoded."""
    return InputError(
        f"{path} could not be read: {reason.strip().rstrip('.')}.",
        "The file is damaged, truncated, or not of the format its name says.",
        "Export or copy it again, and check that it opens elsewhere.",
    )


def four_dimensional(path: Path, shape: tuple[int, ...]) -> InputError:
    """The error for a series of volumes; `shape` in the file's own order, first axis first."""
    return InputError(
        f"{path} has {len(shape)} dimensions ({' x '.join(map(str, shape))}).",
        "It holds several volumes, and which one to segment is not known.",
        "Extract one volume (one time point, one b-value) and pass that.",
    )


def bad_spacing(path: Path, spacing: object) -> InputError:
    """The error for voxel spacing that is zero, negative or not finite."""
    return InputError(
        f"{path} has voxel spacing {spacing} mm.",
        "Spacing must be positive: sizes and volumes in mm cannot be computed from it.",
        "Correct the spacing in the file's header, or export the image again.",
    )


def unsupported(path: Path, what: str) -> InputError:
    """The error for what a format allows and nobody here can read; `what` completes "has"."""
    return InputError(
        f"{path} has {what}.",
        "This form of the format cannot be read here.",
        "Open it in Slicer and save it as .nrrd, with whole numbers or real numbers in each voxel.",
    )
