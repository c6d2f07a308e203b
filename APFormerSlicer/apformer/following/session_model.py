"""The adapted network as a model for the rest of a session: marked as such, and never a version of its base."""

from __future__ import annotations

from pathlib import Path

from ..bundles import Bundle
from ..bundles.writer import save_bundle
from .followed import Followed

MARK = "+followed"
_CARD = """\
# {name}, adapted to one patient

Learned within seconds from {corrections} of one patient, which were not checked against any other case. It is meant for
the next patients of the same session, to be looked at as any proposal. It is no version of {name}: that takes a
fine-tuning, which measures it on the site's validation cases first.

"""


def save_session_model(directory: Path, base: Bundle, followed: Followed) -> Bundle:
    """Write it to `directory`.

    Raises:
        ValueError: nothing was gained, so there is no such network.
        OutputError: it cannot be written there.
    """
    if not followed.gained:
        raise ValueError("nothing was gained: the network is the base")
    base_version = f"{base.name} {base.version}"
    return save_bundle(
        directory,
        name=base.name,
        version=base.version.partition("+")[0] + MARK,
        description=f"{base.description} Adapted to one patient: followed {followed.corrections}.",
        modality=base.modality,
        channels=base.channels,
        labels=base.labels,
        preprocessing=base.preprocessing,
        network_name=base.network_name,
        network_arguments=base.network_arguments,
        state_dict=followed.weights,
        card=_CARD.format(name=base.name, corrections=followed.corrections) + base.card,
        training={"followed": followed.corrections, "share": followed.share, "steps": followed.steps},
        metrics={},
        data_licence=str(base.metadata["data_licence"]),
        parent_version=base_version,
    )
