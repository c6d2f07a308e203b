"""The whole recipe of a fine-tuning, as the training loop takes it: sizes, rates, augmentation."""

from __future__ import annotations

from dataclasses import replace

from ..bundles import Bundle
from ..training.config import Augmentation, LossWeights, Pruning, Split, Stage, TrainingConfig
from ..training.gates import READY
from .design import Design
from .form import GATES, SLICES, Form
from .labels import LabelPlan
from .request import LEANFORMER, Request

PHASE_NAMES = {"closed": "adapt", "hard": "prune"}  # of what gates do, as a user reads them

# From a base that knows all of the structures, and from one that has to learn new ones. What a few cases teach holds
# less for other patients the farther the weights go: mean Dice of 20 patients of whom none was learned from, after
# three minutes on ten others, was 0.852 at 6e-4 and 0.871 at 1.5e-4; the base had 0.826 (left ventricle, ACDC).
PEAK_RATE, PEAK_RATE_NEW = 2e-4, 6e-4
# From nothing, by dimensions. A volume's step takes a second, so there are few of them, and each has to go far: four
# structures of an abdomen had mean Dice 0.42 after eight minutes at 1e-3, and 0.83 at 3e-3 (`benchmark systems`).
PEAK_RATE_SCRATCH = {2: 1.5e-3, 3: 3e-3}
LATE_RATE, FINAL_RATE = 2e-4, 1e-5
BATCH = {2: 4, 3: 2}
# Pixels: larger 2D patches are first learned from crops of half their size, which cost a sixth of the whole (attention
# grows faster than the image), for this share of the time, or of the steps.
COARSE_FROM = 192
COARSE_SHARE = 0.6
AVERAGE_REACH = 1 / 30  # of the training, that the average of the weights looks back over
# Where structures have to be found first. Of seven organs of the head and neck, 331 steps without it found the mandible
# alone; 168 with it all of them (docs/fine-tuning.md).
BALANCED = 0.5
SSA_EVERY = 4  # steps: whole attention maps are costly


def write_recipe(
    request: Request,
    source: Bundle | Design,
    plan: LabelPlan,
    form: Form,
    version: str,
    licence: str,
    precision: str = "float32",
) -> TrainingConfig:
    """The recipe. It decides the weights, together with the cases and the base."""
    settings = source.preprocessing
    scratch = isinstance(source, Design) or plan.remembered(source) is None  # nothing is known that could be lost
    pruning = Pruning(request.budget) if form.budget == GATES and request.budget else None
    gates = "closed" if pruning is None else READY if scratch else first_gates(source)
    return TrainingConfig(
        name=request.name,
        version=version,
        description=_description(source, plan),
        modality=source.modality,
        channels=source.channels,
        data_licence=licence,
        labels=plan.labels,
        preprocessing=settings,
        network=form.network,
        network_arguments=form.arguments,
        split=Split("(?P<number>[0-9]+)"),  # the site's own frozen split takes its place
        stages=_stages(
            gates,
            settings.patch_size,
            PEAK_RATE_NEW if plan.has_new else PEAK_RATE,
            scratch,
            request.steps is not None,
            form.network == LEANFORMER,
        ),
        augmentation=_augmentation(source, plan.sided),
        seed=request.seed,
        precision=precision,
        losses=LossWeights(balanced=BALANCED if scratch or plan.has_new else 0.0),
        weight_decay=0.01,
        ema_reach=AVERAGE_REACH,
        # Those of a few cases tell less of other patients than the base's do; but what is cut has others.
        keep_statistics=not scratch and form.budget != SLICES,
        pruning=pruning,
    )


def _description(source: Bundle | Design, plan: LabelPlan) -> str:
    names = ", ".join(label.name for label in plan.labels)
    if isinstance(source, Bundle) and plan.remembered(source) is None:
        begun = f"begun with the weights of {source.name} {source.version}, of other structures"
        return f"{names}. Trained on a site's own cases, {begun}."
    if isinstance(source, Bundle):
        return f"{names}. Fine-tuned on a site's own cases from {source.name} {source.version}."
    return f"{names}. Trained on a site's own cases from scratch."


def first_gates(source: Bundle | Design) -> str:
    """What the gates of a training to a budget do from its beginning: those that the base has had all along are hard at
    once, new ones wait for their prune head."""
    gated = isinstance(source, Bundle) and (
        source.network_name == "pruned" or bool(source.network_arguments.get("prune_queries"))
    )
    return "hard" if gated else READY


def _stages(
    gates: str, patch: tuple[int, ...], peak: float, scratch: bool, fixed: bool, lean: bool
) -> tuple[Stage, ...]:
    """One stage, or two: large images are seen in part first, and whole at the end. A LeanFormer, which knows by a
    table where in the image it looks, sees all of them coarsely instead; one that has learned it needs neither."""
    peak = PEAK_RATE_SCRATCH[len(patch)] if scratch else peak
    late = min(LATE_RATE, peak)
    batch = BATCH[len(patch)]
    whole = Stage(
        epochs=0,
        share=1.0,
        size=patch,
        crop=len(patch) == 2,
        batch_size=batch,
        learning_rate=peak,
        final_learning_rate=FINAL_RATE,
        learn_position=scratch,
        ssa_every=SSA_EVERY,
        gates=gates,
    )
    if fixed or len(patch) != 2 or max(patch) < COARSE_FROM or (lean and not scratch):
        return (whole,)
    half = tuple(max(16, n // 2 // 8 * 8) for n in patch)
    coarse = replace(whole, size=half, batch_size=2 * batch, crop=not lean)
    first = replace(coarse, share=COARSE_SHARE, final_learning_rate=late)
    return first, replace(whole, share=1 - COARSE_SHARE, learning_rate=late, learn_position=False)


def _augmentation(source: Bundle | Design, sided: bool) -> Augmentation:
    """Strong: with few cases, most of what real input brings has to be made. But where left and right are two
    structures, nothing is mirrored or turned by quarters: that would make each the other."""
    settings = source.preprocessing
    common = Augmentation(
        affine_p=0.9,
        rotate_degrees=15.0,
        zoom_p=0.7,
        zoom=(0.75, 1.35),
        noise_p=0.3,
        noise_std=0.12,
        contrast_p=0.4,
        gamma=(0.65, 1.6),
    )
    if settings.intensity["kind"] == "window":
        return replace(common, noise_std=0.06, intensity_scale=0.12, intensity_shift=0.08)
    common = replace(common, intensity_scale=0.25, intensity_shift=0.3)
    if settings.spatial_dims == 2 and settings.orientation == "acquired":  # rows and columns vary between scanners
        # So does the size: interpolated images often state another spacing than they have.
        common = replace(common, zoom_p=0.8, zoom=(0.6, 2.0))
        if not sided:
            square = settings.patch_size[0] == settings.patch_size[1]  # a quarter turn keeps the patch's shape
            common = replace(common, flip_axes=(0, 1), flip_p=0.3, rotate_degrees=30.0, elastic_p=0.15)
            common = replace(common, rotate90_p=0.3 if square else 0.0)
    return replace(common, bias_field_p=0.15) if source.modality == "MR" else common
