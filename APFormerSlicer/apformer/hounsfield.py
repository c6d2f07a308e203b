"""CT values that cannot be Hounsfield units: recognised by where air and soft tissue lie in the histogram.

In HU, air is near -1000, fat near -100 and soft tissue from 0 to 100, whatever is in the image; only their shares
differ. Rules compare shares of bands with each other, never with the whole image: in one of the head and neck CTs that
they were tested on (OpenKBP) 99.6 % of the voxels are air. They keep quiet where nothing can be known: on crops without
air, contrast, metal, a background of 0, -2000 or -3024, and pictures of HU cut to 0..255. Comments give the bands in HU
of what lies there.
"""

from __future__ import annotations

import numpy as np

from .volume import Volume

_SAMPLED = 400_000
_FEWEST = 500  # voxels, that shares of bands mean something
_FEW = 0.002  # share of all voxels below which a band counts as empty: noise and interpolation leave that much
_SCALED_RANGE = 20.0  # around 0: noise alone spans more in any CT
_OFFSET = 1024  # of stored CT values, most often; 1000 in some exports: the bands are wide enough for both
_BRIGHTEST = 5000.0  # metal in extended HU reaches 30000, but never a hundredth of the voxels
_REMEDY = "Export the image in Hounsfield units (in DICOM, with RescaleSlope and RescaleIntercept applied)"


def doubtful_ct(volume: Volume) -> str | None:
    """Why the values of a CT do not look like Hounsfield units, and what to do; None when they may well be.

    Args:
        volume: of one channel; values that are not finite are left out.
    """
    flat = volume.array.reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLED) | 1].astype(np.float32)  # odd: no multiple of a row's length
    sample = sample[np.isfinite(sample)]
    if len(sample) < _FEWEST:
        return None
    low, high = float(sample.min()), float(sample.max())
    share = _Shares(sample)
    if float(np.abs(np.percentile(sample, [0.1, 99.9])).max()) <= _SCALED_RANGE:
        return (
            f"The values run from {low:.3g} to {high:.3g}: they look scaled to a small range and are not Hounsfield "
            f"units, so the result would be wrong. {_REMEDY}, without normalising it."
        )
    if _has_offset(share):
        return (
            "The values look as if the Hounsfield offset were missing: soft tissue lies near "
            f"{_OFFSET}, where it should be near 0, and nothing is near -1000 as air is. The result would be wrong. "
            f"{_REMEDY}, or subtract {_OFFSET} from every voxel."
        )
    if _is_shifted_twice(share, sample):
        return (
            "The values look as if the Hounsfield offset had been applied twice: soft tissue lies near "
            f"-{_OFFSET}, where it should be near 0. The result would be wrong. "
            f"{_REMEDY} once, or add {_OFFSET} to every voxel."
        )
    if low == 0 and 250 < high <= 255 and share(0, 0) > 0.01 and float(np.mean(sample == high)) > 1e-4:
        return (
            "The values run from 0 to 255 and are cut at both ends, as in a picture of a display window. If they are "
            f"not Hounsfield units cut to that range, the result would be wrong. {_REMEDY}."
        )
    if _is_too_bright(share, sample):
        return (
            f"The values ({low:.4g} to {high:.4g}) do not look like Hounsfield units: most of what is not background "
            f"is brighter than soft tissue. The result may be wrong. {_REMEDY}, or check that the image is a CT."
        )
    return None


class _Shares:
    """Share of the sample from `low` to `high`, both included."""

    def __init__(self, sample: np.ndarray) -> None:
        self._sorted = np.sort(sample)

    def __call__(self, low: float, high: float) -> float:
        first, last = np.searchsorted(self._sorted, [low, np.nextafter(np.float32(high), np.float32(np.inf))])
        return float(last - first) / len(self._sorted)


def _has_offset(share: _Shares) -> bool:
    """HU + 1024 (or 1000): no fat, lung or air below 0, and most of what is above lung lies where soft tissue moves to.

    Bone alone cannot pass: it thins out upwards, with more from 330 to 800 HU than from 850 to 1230.
    """
    if share(-1500, -50) > _FEW:  # air, lung, fat: these are HU
        return False
    tissue = share(850, 1230)  # -174..206 of values moved by 1024
    return tissue > 5e-4 and tissue > 2 * share(330, 800) and tissue > share(1231, 4000)


def _is_shifted_twice(share: _Shares, sample: np.ndarray) -> bool:
    """HU - 1024: nothing is soft tissue, and air or fat lie lower than any air can, or nothing is above air."""
    if share(-1190, -820) < 5e-4:  # -166..204, fat and soft tissue, of moved values
        return False
    if share(-700, 1e9) < 5e-4:  # an image of nothing but air?
        return True
    if share(-160, 200) >= max(share(-700, -340), 1e-9):  # tissue; of moved values: dense bone and the bone below it
        return False
    below = sample[sample < -1500]  # air, moved; or padding, which is one value
    varied = len(below) > 0.01 * len(sample) and float(np.mean(below == np.median(below))) < 0.5
    return varied or share(-1190, -1060) > 0.05 * share(-1059, -820)  # moved fat beside moved tissue


def _is_too_bright(share: _Shares, sample: np.ndarray) -> bool:
    """No negatives, and most of what is not background above 300; or values far beyond metal."""
    if float(np.percentile(sample, 99)) > _BRIGHTEST or share(-1e9, -4000) > 0.01:
        return True
    above = share(301, 1e9)
    return share(-1e9, -50) <= _FEW and above > 0.01 and above > 2.5 * share(1, 300)
