"""`models`: a version made active, a step back, a model exported or imported, each proved first, weights and all.

Fields: change ("activate", "rollback", "export" or "import"); model (NAME@VERSION to activate, NAME to roll back,
either to export); path (of the zip file that is written or read); replace; why; roots (folders of the library, the
user's first; by default the user's and the program's). Where an import would replace a model unasked, nothing is
changed and "present" is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..messages import Fields

if TYPE_CHECKING:
    from ...bundles import Bundle, ModelLibrary
    from ..job import Job

CHANGES = ("activate", "rollback", "export", "import")


@dataclass(frozen=True)
class Arguments:
    """`model` is empty for an import, `path` None for a change without a file."""

    change: str
    model: str
    path: Path | None
    replace: bool
    why: str
    roots: tuple[str, ...]


def parse(fields: Fields) -> Arguments:
    change = fields.choice("change", CHANGES)
    return Arguments(
        change,
        "" if change == "import" else fields.text("model"),
        fields.path("path") if change in ("export", "import") else None,
        fields.flag("replace") if change == "import" else False,
        fields.optional_text("why") or "",
        fields.texts("roots"),
    )


def run(job: Job) -> dict[str, Any]:
    from ...bundles import InstalledError, ModelLibrary

    asked: Arguments = job.arguments
    job.progress(0.0, "checking the model")
    library = ModelLibrary(asked.roots or None)
    if asked.change == "export":
        return {"path": str(library.export_zip(asked.model, asked.path or Path()))}
    try:
        bundle = _change(library, asked)
    except InstalledError as error:
        return {"present": True, "name": error.name}
    return {"present": False, "name": bundle.name, "version": bundle.version}


def _change(library: ModelLibrary, asked: Arguments) -> Bundle:
    if asked.change == "import":
        return library.import_zip(asked.path or Path(), replace=asked.replace)
    name, _, version = asked.model.partition("@")
    if asked.change == "rollback":
        return library.rollback(name, asked.why)
    return library.activate(name, version, asked.why)
