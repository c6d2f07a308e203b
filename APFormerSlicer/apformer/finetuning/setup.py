"""Everything that a fine-tuning works with, found and checked before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..bundles import Bundle, ModelLibrary
from ..datasets import BLOCKS, COMPLETED, Problem, SiteCase, SiteDataset, Split, check_dataset
from ..datasets.check_content import outlines
from ..datasets.problem import listing
from ..errors import ConfigError
from ..inference import choose_device
from ..training.parallel import Processes
from .cases import SiteReader
from .design import Design, design
from .folder import TRAININGS
from .form import Form, choose_form
from .labels import LabelPlan, plan_labels
from .layout import FEWEST_ACROSS
from .request import Request
from .window import window_problems


@dataclass(frozen=True)
class Setup:
    """What a fine-tuning works with.

    Attributes:
        sites: the completed cases that take part. warnings: of the data set, in words.
        unseen: see `window_problems`; among the warnings.
        source: the base, or the design of a new model. form: of the network that is trained.
        rival: the version that is active now under the name to write, when that is not the base.
    """

    request: Request
    dataset: SiteDataset
    sites: tuple[SiteCase, ...]
    split: Split
    base: Bundle | None
    rival: Bundle | None
    plan: LabelPlan
    source: Bundle | Design
    form: Form
    device: torch.device
    reader: SiteReader
    unseen: tuple[Problem, ...]
    warnings: tuple[str, ...]

    def divided(self, fold: int) -> tuple[list[SiteCase], list[SiteCase]]:
        """(training, validation) of a fold."""
        return self.split.divide(self.sites, fold)

    @property
    def remembered(self) -> Bundle | None:
        """See `LabelPlan.remembered`."""
        return self.plan.remembered(self.base)

    @property
    def licence(self) -> str:
        """Under which the new model's data are: the site's own, and the base's, whose weights live on."""
        own = "A site's own cases; their use and any passing on of this model are the site's responsibility."
        return own if self.base is None else f"{own} Base model: {self.base.metadata['data_licence']}"


def _never() -> None:
    """The default of `check`."""


def set_up(
    request: Request,
    library: ModelLibrary,
    processes: Processes,
    began: Mapping[str, Any] | None = None,
    check: Callable[[], None] = _never,
) -> Setup:
    """Open and check everything; the split is frozen here, by the first process.

    Args:
        began: what the training that is to be continued began with; see `beginning`.
        check: called between the files that are read; stops by raising.

    Raises:
        ConfigError: the data set cannot be trained on, the request does not fit it, or what the training began with
            has changed since.
        BundleError: there is no such base, or it is unsound.
        PruningError: a budget for a network that cannot be pruned.
        OutputError: the data set cannot be written.
    """
    if not request.dataset.is_dir():
        raise ConfigError(
            f"{request.dataset} is not a folder.",
            "There are no cases to learn from.",
            "Check the path of the data set.",
        )
    dataset = SiteDataset.open(request.dataset)
    base = _find_base(request, library, began)
    problems = check_dataset(dataset, base, learned=request.labels, progress=lambda done, total: check())
    blocking = [problem for problem in problems if problem.severity == BLOCKS]
    if blocking:
        more = f" (and {len(blocking) - 1} more)" if len(blocking) > 1 else ""
        raise ConfigError(blocking[0].what + more, blocking[0].meaning, blocking[0].remedy)
    if processes.is_first:
        dataset.freeze_split(check=check)
    processes.wait()
    dataset.reload()
    assert dataset.split is not None
    listed = began["cases"] if began else processes.from_first(case_list(dataset.cases(COMPLETED)))
    sites = _listed(dataset, listed, request)
    occurring = {value for site in sites for value in _counts(site)}
    plan = plan_labels(dataset.labels, occurring, base, request)
    source: Bundle | Design = base or design(sites, list(plan.site_values), check, request.network, plan.sided)
    refuse_unfit(source, sites, "Choose a base for such images, or keep these cases in a data set of their own.")
    refuse_lost(source, sites, plan)
    unseen = window_problems(base, sites, plan, check)
    rival = _rival(request.name, base, library)
    if rival is not None and began is None:
        refuse_unfit(rival, sites, "Write the new model under another name.")
    device = processes.device(choose_device(request.device))
    setup = Setup(
        request=request,
        dataset=dataset,
        sites=tuple(sites),
        split=dataset.split,
        base=base,
        rival=rival,
        plan=plan,
        source=source,
        form=choose_form(source, plan, request.budget),
        device=device,
        reader=SiteReader.of(sites, plan),
        unseen=tuple(unseen),
        warnings=tuple(problem.what for problem in (*problems, *unseen)),
    )
    if began:
        _refuse_changed(setup, began)
    return setup


def _counts(site: SiteCase) -> dict[int, int]:
    return site.revision.counts if site.revision is not None else {}


def _rival(name: str, base: Bundle | None, library: ModelLibrary) -> Bundle | None:
    entry = next((entry for entry in library.list() if entry.name == name), None)
    if entry is None or entry.bundle is None or (base is not None and entry.bundle.checksum == base.checksum):
        return None
    return entry.bundle


def _find_base(request: Request, library: ModelLibrary, began: Mapping[str, Any] | None) -> Bundle | None:
    """The base; a training that is continued keeps the very one it began with, whichever version is active by now.

    Raises:
        ConfigError: it began with another one, or that version is not what it was.
        BundleError: there is no such model.
    """
    base = None if request.base is None else library.find(request.base)
    if began is None or _base_of(base) == began["base"]:
        return base
    first = began["base"]
    if base is not None and first is not None and base.name == first["name"]:
        base = library.find(f"{first['name']}@{first['version']}")
    if _base_of(base) != first:
        name = "no base" if first is None else f"{first['name']} {first['version']}"
        raise _changed(request, f"It began with {name}, which is not what is given now.")
    return base


def _base_of(base: Bundle | None) -> dict[str, str] | None:
    return None if base is None else {"name": base.name, "version": base.version, "checksum": base.checksum}


def refuse_unfit(model: Bundle | Design, sites: Sequence[SiteCase], remedy: str) -> None:
    """Raises ConfigError when the model cannot segment all of these cases: it has to, to be measured."""
    name = f"{model.name} {model.version}" if isinstance(model, Bundle) else "the network that suits most cases"
    odd = [site for site in sites if site.image.channels != model.channels]
    flat = [site for site in sites if model.preprocessing.spatial_dims == 3 and min(site.image.shape_kji) == 1]
    if odd:
        what = f"Not every case has {model.channels} channels, as {name} takes them: {listing(odd)}."
    elif flat:
        what = f"Not every case is a volume, as {name} takes them; single slices: {listing(flat)}."
    else:
        return
    raise ConfigError(what, "It cannot be measured on these cases, nor learn from them.", remedy)


def refuse_lost(model: Bundle | Design, sites: Sequence[SiteCase], plan: LabelPlan) -> None:
    """Raises ConfigError when a structure would be lost on the model's grid: all there is of it, in the case that has
    most, fills less than one of its voxels (of its pixels, in 2D)."""
    spacing = model.preprocessing.spacing_mm
    if spacing is None:
        return
    for value, channel in plan.site_values.items():
        held = max(sites, key=lambda site: _counts(site).get(value, 0) * site.image.voxel_ml)
        stored = sorted(held.image.spacing_ijk)[: len(spacing)]
        amount = _counts(held).get(value, 0) * float(np.prod(stored))
        if 0 < amount < float(np.prod(spacing)):
            name, edge = plan.judged[channel], (amount / FEWEST_ACROSS ** len(spacing)) ** (1 / len(spacing))
            unit = "mm³" if len(spacing) == 3 else "mm²"
            raise ConfigError(
                f"{name} is smaller than a voxel of {' x '.join(f'{mm:.3g}' for mm in spacing)} mm: in {held.name}, "
                f"which has most of it, it is {amount:.3g} {unit}.",
                "The network would never see it, so it cannot be learned.",
                f"Choose a base with a spacing of {edge:.2g} mm or less, or none: its spacing follows from the cases.",
            )


def case_list(sites: Sequence[SiteCase]) -> dict[str, str]:
    """The cases and the versions of their labels: a training that is continued goes on with the very same.

    Of what a case does not outline, only what some case holds counts: a label that the table got later concerns nobody.
    """
    held = sorted({value for site in sites for value in _counts(site)})
    return {site.name: _version(site, held) for site in sites}


def _version(site: SiteCase, held: Sequence[int]) -> str:
    """Of the labels of a case: their hash, and what of `held` was not outlined."""
    if site.revision is None:
        return ""
    return " ".join([site.revision.sha256, *(str(value) for value in held if not outlines(site, value))])


def _listed(dataset: SiteDataset, listed: Mapping[str, str], request: Request) -> list[SiteCase]:
    """Exactly the cases of a `case_list`; those that were completed later wait for the next training.

    Raises:
        ConfigError: one is gone or has been corrected since.
    """
    same = [
        site
        for site in dataset.cases(COMPLETED)
        if site.revision is not None and listed.get(site.name, "").partition(" ")[0] == site.revision.sha256
    ]
    now = case_list(same)
    kept = [site for site in same if listed[site.name] == now[site.name]]
    changed = sorted(listed.keys() - {site.name for site in kept})
    if changed:
        raise _changed(request, f"{changed[0]} was removed, reopened or corrected since the training began.")
    return kept


def beginning(setup: Setup) -> dict[str, Any]:
    """What a training begins with, and must not change until it is finished; plain data, as JSON gives it back."""
    request = setup.request
    settings = {name: getattr(request, name) for name in ("budget", "steps", "seed", "rehearsal", "network")}
    values = sorted(map(list, setup.plan.site_values.items()))
    began = {
        "cases": case_list(setup.sites),
        "validation": [[site.name for site in setup.divided(fold)[1]] for fold in range(setup.split.rounds)],
        "base": _base_of(setup.base),
        "labels": {"of the model": setup.plan.describe(), "values in the site's files": values},
        "settings": settings,
    }
    return json.loads(json.dumps(began))


def _refuse_changed(setup: Setup, began: Mapping[str, Any]) -> None:
    now = beginning(setup)
    for name, first in began["settings"].items():
        if now["settings"][name] != first:
            raise _changed(setup.request, f"It began with {name} = {first}, and {now['settings'][name]} is given now.")
    if now["labels"] != began["labels"]:
        raise _changed(setup.request, "Its labels, or what becomes of them, have changed since it began.")
    if now["validation"] != began["validation"]:
        raise _changed(setup.request, "The data set was divided anew since it began.")


def _changed(request: Request, what: str) -> ConfigError:
    return ConfigError(
        f"The unfinished training of {request.name} cannot be continued. {what}",
        "What it has learned and measured so far would not belong to the rest.",
        "Continue it with what it began with; or give it up: delete "
        f"{request.dataset / TRAININGS / request.name}, then start anew, without --resume.",
    )
