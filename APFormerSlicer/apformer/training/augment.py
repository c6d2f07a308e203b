"""Random changes that stand for other scanners, protocols, positions and readers: of whole batches, as tensors.

Ranges and their distributions are those of MONAI's transforms of the same names. What MONAI does image by image and one
after the other is done here for a batch at once: all movements are one affine map and one sampling, so that an image is
interpolated once; blur and low resolution are one matrix per axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .config import Augmentation
from .pathology import add_lesions, shift_organs

ELASTIC_MAGNITUDE = (0.5, 2.0)  # voxels, times a normal number per control point
BLUR_SIGMA = (0.25, 1.2)  # voxels
LOW_RESOLUTION = (0.4, 0.9)  # of the resolution
BIAS_DEGREE, BIAS_RANGE = 2, (0.0, 0.2)  # of Legendre polynomials, and their coefficients'


class Augmenter:
    """Changes batches of one size.

    Args:
        size: of the images. air_is_zero: whether what is moved in is 0 (after a window, air is); else the edge is
            repeated, since 0 is the mean after percentile scaling.
        edges: of a voxel along the axes of `size`, in any unit: images are turned and sheared in space. Without them
            voxels are taken for squares and cubes.
    """

    def __init__(
        self, config: Augmentation, size: Sequence[int], air_is_zero: bool, edges: Sequence[float] | None = None
    ) -> None:
        self.config, self.size, self.dims = config, tuple(size), len(size)
        lengths = torch.tensor(edges or [1.0] * self.dims, dtype=torch.float64)
        self._ratios = (lengths / lengths[:, None]).float()  # [a, b]: how many voxels along a are one along b
        self.padding = "zeros" if air_is_zero else "border"
        self._bias = _legendre_products(self.size) if config.bias_field_p else None

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Geometry moves both, intensity the images alone.

        Args:
            images: float (B, C, *size); labels: (B, maps, *size) of any type.
            generator: on the CPU; what it draws decides everything.

        Returns: new tensors of the same shapes and types.
        """
        draw = _Draw(len(images), generator)
        if self.config.organ_p:
            images = shift_organs(images, labels, self.config.organ_p, self.config.organ_shift, generator)
        if self.config.lesion_p:
            images = add_lesions(images, labels, self.config.lesion_p, self.config.lesion_shift, generator)
        images, labels = self._move(images, labels, draw)
        return self._add_noise(self._soften(self._shade(images, draw), draw), draw), labels

    # ------------------------------------------------------------------ geometry

    def _move(self, images: Tensor, labels: Tensor, draw: _Draw) -> tuple[Tensor, Tensor]:
        linear, shift = self._affine(draw)
        bent = draw.chosen(self.config.elastic_p if self.dims == 2 else 0.0)
        if not (shift.any() or len(bent) or (linear != torch.eye(self.dims)).any()):
            return images.clone(), labels
        half = torch.tensor(self.size, dtype=torch.float32) / 2  # voxels are 1 / half apart in grid_sample's measure
        theta = torch.cat([linear * half / half[:, None], (shift / half)[..., None]], dim=2)
        theta = torch.cat([theta[:, :, :-1].flip(1, 2), theta[:, :, -1:].flip(1)], dim=2)  # it counts axes backwards
        grid = F.affine_grid(theta, [len(images), 1, *self.size], align_corners=False)
        if len(bent):
            grid[bent] += torch.einsum("bij,b...j->b...i", theta[bent, :, :-1], self._bend(bent, draw))
        moved = F.grid_sample(images, grid, mode="bilinear", padding_mode=self.padding, align_corners=False)
        named = F.grid_sample(labels.float(), grid, mode="nearest", padding_mode=self.padding, align_corners=False)
        return moved, named.to(labels.dtype)

    def _affine(self, draw: _Draw) -> tuple[Tensor, Tensor]:
        """(B, dims, dims) and (B, dims): from the centre of a result to where it is taken from, in voxels."""
        config, dims = self.config, self.dims
        own = torch.eye(dims).expand(draw.count, dims, dims)
        radians = math.radians(config.rotate_degrees)
        turned = own
        for first, second in ((0, 1),) if dims == 2 else ((1, 2), (0, 2), (0, 1)):
            turned = turned @ _rotation(draw.between(-radians, radians), first, second, dims)
        sheared = own.clone()
        off = [(a, b) for a in range(dims) for b in range(dims) if a != b]
        for row, column in off:
            sheared[:, row, column] = draw.between(-config.shear, config.shear)
        moved = turned @ sheared * self._ratios  # in space, between voxels: E^-1 M E with the edges E on a diagonal
        stretch = torch.stack([draw.between(1 - config.stretch, 1 + config.stretch) for _ in range(dims)], dim=1)
        shift = torch.stack([n * draw.between(-config.translate, config.translate) for n in self.size], dim=1)
        happens = draw.happens(config.affine_p)
        linear = torch.where(happens[:, None, None], moved * stretch[:, None], own)
        # MONAI moves after turning and shearing, before stretching: T of R S T Z.
        shift = torch.where(happens[:, None], torch.einsum("bij,bj->bi", moved, shift), 0.0)
        if config.zoom_p:
            zoom = torch.where(draw.happens(config.zoom_p), draw.between(*config.zoom), 1.0)
            linear = linear / zoom[:, None, None]
        outer = self._mirrors(draw)
        return outer @ linear, torch.einsum("bij,bj->bi", outer, shift)

    def _mirrors(self, draw: _Draw) -> Tensor:
        """(B, dims, dims): flips and quarter turns of the first two axes."""
        outer = torch.eye(self.dims).repeat(draw.count, 1, 1)
        for axis in self.config.flip_axes:
            outer[:, axis, axis] *= 1.0 - 2.0 * draw.happens(self.config.flip_p)
        if self.config.rotate90_p:
            quarters = torch.where(draw.happens(self.config.rotate90_p), draw.between(1.0, 4.0).floor(), 0.0)
            outer = outer @ _rotation(quarters * math.pi / 2, 0, 1, self.dims).round()
        return outer

    def _bend(self, bent: Tensor, draw: _Draw) -> Tensor:
        """(bent images, rows, columns, 2): smooth displacements, in grid_sample's measure and order."""
        spacing = max(8, min(self.size) // 8)
        control = [math.ceil(n / spacing) + 3 for n in self.size]  # the outer ones shape what lies between
        offsets = (draw.normal(2, *control) * draw.between(*ELASTIC_MAGNITUDE)[:, None, None, None])[bent]
        smooth = F.interpolate(offsets, scale_factor=float(spacing), mode="bicubic", align_corners=False)
        starts = [(have - n) // 2 for have, n in zip(smooth.shape[2:], self.size, strict=True)]
        rows, columns = (slice(start, start + n) for start, n in zip(starts, self.size, strict=True))
        cut = smooth[:, :, rows, columns].flip(1).movedim(1, -1)
        return cut * 2 / torch.tensor(self.size[::-1], dtype=torch.float32)

    # ------------------------------------------------------------------ intensity

    def _shade(self, images: Tensor, draw: _Draw) -> Tensor:
        config = self.config
        if self._bias is not None:
            chosen = draw.chosen(config.bias_field_p)
            weights = draw.uniform(len(self._bias), *BIAS_RANGE)[chosen]
            fields = (weights @ self._bias.flatten(1)).exp().reshape(len(chosen), 1, *self.size)
            images[chosen] = images[chosen] * fields
        chosen, gamma = draw.chosen(config.contrast_p), draw.between(*config.gamma)
        if len(chosen):
            images[chosen] = _with_gamma(images[chosen], gamma[chosen])
        scale, shift = config.intensity_scale, config.intensity_shift
        factor = torch.where(draw.happens(config.intensity_p), 1 + draw.between(-scale, scale), 1.0)
        offset = torch.where(draw.happens(config.intensity_p), draw.between(-shift, shift), 0.0)
        return images.mul_(_per_image(factor, images)).add_(_per_image(offset, images))

    def _soften(self, images: Tensor, draw: _Draw) -> Tensor:
        """Low resolution, then blur: both are linear along each axis, so together one matrix per image and axis."""
        coarse, zoom = draw.happens(self.config.low_resolution_p), draw.between(*LOW_RESOLUTION)
        blurred = draw.happens(self.config.blur_p)
        sigmas = [draw.between(*BLUR_SIGMA) for _ in range(self.dims)]
        chosen = torch.nonzero(coarse | blurred)[:, 0]
        if not len(chosen):
            return images
        soft = images[chosen]
        for axis, (size, sigma) in enumerate(zip(self.size, sigmas, strict=True)):
            matrices = torch.stack(
                [
                    _multiplied(
                        _blurring(size, float(sigma[n])) if blurred[n] else None,
                        _coarsening(size, float(zoom[n])) if coarse[n] else None,
                    )
                    for n in chosen.tolist()
                ]
            )
            soft = _along(soft, matrices, axis)
        images[chosen] = soft
        return images

    def _add_noise(self, images: Tensor, draw: _Draw) -> Tensor:
        chosen, std = draw.chosen(self.config.noise_p), draw.between(0.0, self.config.noise_std)
        if len(chosen):
            noise = torch.randn(images[chosen].shape, generator=draw.generator)
            images[chosen] += noise * _per_image(std[chosen], images)
        return images


class _Draw:
    """What is drawn for each image of a batch."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator

    def uniform(self, numbers: int, low: float, high: float) -> Tensor:
        """(B, numbers)."""
        return low + (high - low) * torch.rand(self.count, numbers, generator=self.generator)

    def between(self, low: float, high: float) -> Tensor:
        """(B,)."""
        return self.uniform(1, low, high)[:, 0]

    def happens(self, probability: float) -> Tensor:
        """(B,) of bool."""
        return self.between(0.0, 1.0) < probability

    def chosen(self, probability: float) -> Tensor:
        """Numbers of the images that something happens to."""
        return torch.nonzero(self.happens(probability))[:, 0]

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape)."""
        return torch.randn(self.count, *shape, generator=self.generator)


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (images.ndim - 1))


def _rotation(angles: Tensor, first: int, second: int, dims: int) -> Tensor:
    """(B, dims, dims): turns in the plane of two axes."""
    turned = torch.eye(dims).repeat(len(angles), 1, 1)
    turned[:, first, first] = turned[:, second, second] = angles.cos()
    turned[:, first, second], turned[:, second, first] = -angles.sin(), angles.sin()
    return turned


def _legendre_products(size: Sequence[int]) -> Tensor:
    """(terms, *size): the products of Legendre polynomials that MONAI's bias field is made of."""
    lines = []
    for n in size:
        x = torch.linspace(-1, 1, n)
        lines.append([torch.ones(n), x, (3 * x**2 - 1) / 2][: BIAS_DEGREE + 1])
    if len(size) == 2:  # MONAI fills the lower triangle of the coefficients
        return torch.stack([lines[0][a][:, None] * lines[1][b] for a in range(BIAS_DEGREE + 1) for b in range(a + 1)])
    powers = range(BIAS_DEGREE + 1)
    return torch.stack(
        [
            lines[0][a][:, None, None] * lines[1][b][:, None] * lines[2][c]
            for a in powers
            for b in powers
            for c in powers
            if a + b + c <= BIAS_DEGREE
        ]
    )


def _with_gamma(images: Tensor, gamma: Tensor) -> Tensor:
    """Each image to a power, within its own range."""
    flat = images.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    width = (high - low).clamp_min(1e-7)
    return (((flat - low) / width).pow(gamma[:, None]) * width + low).reshape(images.shape)


def _blurring(size: int, sigma: float) -> Tensor:
    """(size, size): a Gaussian integrated over voxels; at an edge, what is inside counts alone."""
    distance = torch.arange(size)[:, None] - torch.arange(size)
    scale = 1 / (sigma * math.sqrt(2))
    weights = torch.erf((distance + 0.5) * scale) - torch.erf((distance - 0.5) * scale)
    return weights / weights.sum(1, keepdim=True)


def _coarsening(size: int, zoom: float) -> Tensor:
    """(size, size): means over fewer voxels, and back by linear interpolation."""
    few = F.interpolate(torch.eye(size)[None], size=max(1, round(size * zoom)), mode="area")
    return F.interpolate(few, size=size, mode="linear")[0].T


def _multiplied(second: Tensor | None, first: Tensor | None) -> Tensor:
    if second is None or first is None:
        only = first if second is None else second
        assert only is not None  # the image was chosen for one of them
        return only
    return second @ first


def _along(images: Tensor, matrices: Tensor, axis: int) -> Tensor:
    """Each image (C, *size) times its own matrix (B, n, n) along a spatial axis."""
    shape = images.shape
    if axis == images.ndim - 3:
        rows = shape[1] * math.prod(shape[2:-1])
        return (images.reshape(len(images), rows, shape[-1]) @ matrices.mT).reshape(shape)
    flat = images.reshape(len(images), math.prod(shape[1 : 2 + axis]), shape[2 + axis], -1)
    return (matrices[:, None] @ flat).reshape(shape)


def fit(image: Tensor, size: Sequence[int], offset: Sequence[float] | None = None) -> Tensor:
    """Pad with the edge value and cut (C, *spatial) to `size`.

    Args:
        offset: where in the surplus the cut starts, 0 to 1 per axis; the centre by default.
    """
    padding: list[int] = []
    for old, new in zip(reversed(image.shape[1:]), reversed(tuple(size)), strict=True):
        missing = max(0, new - old)
        padding += [missing // 2, missing - missing // 2]
    if any(padding):
        image = F.pad(image[None], padding, mode="replicate")[0]
    starts = [  # floor, as in the padding above: fitting back to the first size then returns every voxel to its place
        (old - new) // 2 if offset is None else round((old - new) * offset[axis])
        for axis, (old, new) in enumerate(zip(image.shape[1:], size, strict=True))
    ]
    return image[(slice(None), *(slice(s, s + n) for s, n in zip(starts, size, strict=True)))]
