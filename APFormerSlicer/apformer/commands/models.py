"""`apformer models`: the models on this computer, and their versions."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from . import options as option
from .console import Console, as_user_error

if TYPE_CHECKING:
    from ..bundles import Bundle, ModelEntry, ModelLibrary, VersionEntry


def add_parser(commands: Any, shared: argparse.ArgumentParser) -> None:
    text = "list, show, verify, import, export, remove models; choose between versions"
    parser = commands.add_parser("models", help=text)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    def action(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(name, parents=[shared], help=text, description=text)
        added.set_defaults(run=function)
        return added

    action("list", _list, "what is installed")
    show = action("show", _show, "what a model is for, and its card")
    show.add_argument("model", metavar=option.MODEL)
    verify = action("verify", _verify, "check files, checksums and weights")
    verify.add_argument("models", nargs="*", metavar=option.MODEL, help="all that are installed when none is named")
    imported = action("import", _import, "install a model from a zip file")
    imported.add_argument("zip", type=option.path, metavar="ZIP")
    text = "replace an installed model of that name; beside versions trained here: become the active version"
    imported.add_argument("--replace", action="store_true", help=text)
    export = action("export", _export, "write a model to a zip file, without pictures of the cases that judged it")
    export.add_argument("model", metavar=option.MODEL)
    export.add_argument("-o", "--output", type=option.path, default=".", metavar="ZIP", help="zip file, or a folder")
    export.add_argument("--pictures", action="store_true", help="with these pictures; they may be of your patients")
    remove = action("remove", _remove, "remove a model that was imported or trained, or one version of it")
    remove.add_argument("model", metavar="NAME[@VERSION]")
    remove.add_argument("--all-versions", action="store_true", help="also every version that was trained")
    history = action("history", _history, "the versions of a model, and which one is active")
    history.add_argument("name", metavar="NAME")
    activate = action("activate", _activate, "make a version of a model the one that its name stands for")
    activate.add_argument("name", metavar="NAME")
    activate.add_argument("version", metavar="VERSION", help="as in the history; or bundled, or imported")
    rollback = action("rollback", _rollback, "go back to the version that was active before")
    rollback.add_argument("name", metavar="NAME")
    for parser in (activate, rollback):
        parser.add_argument("--why", default="", metavar="TEXT", help="a reason, kept in the history")


def _list(options: argparse.Namespace, console: Console) -> int:
    from ..bundles import ModelLibrary

    library = ModelLibrary()
    entries, inactive = library.list(), library.inactive()
    lines = [line for entry in entries for line in _entry_lines(entry)]
    lines += [f"{name}  (no version is active; see `apformer models history {name}`)" for name in inactive]
    text = "\n".join(lines) or f"No model is installed. Models are kept in {library.user_root}."
    data = {"models": [_entry(entry) for entry in entries], "inactive": inactive}
    console.result({**data, "user_folder": str(library.user_root)}, text)
    return 0


def _entry(entry: ModelEntry) -> dict[str, Any]:
    sound = {} if entry.bundle is None else _outline(entry.bundle)
    return {
        "name": entry.name,
        "version": entry.version,
        **sound,
        "directory": str(entry.directory),
        "read_only": entry.read_only,
        "origin": entry.origin,
        "versions": entry.versions,
        "problem": entry.problem,
    }


def _entry_lines(entry: ModelEntry) -> list[str]:
    if entry.bundle is None:
        return [f"{entry.name}  BROKEN", f"  {entry.problem}"]
    bundle = entry.bundle
    labels = ", ".join(f"{label.value} {label.name}" for label in bundle.labels)
    kind = f"{bundle.modality}, {bundle.preprocessing.spatial_dims}D"
    versions = f"  {entry.origin}, one of {entry.versions} versions" if entry.versions > 1 else ""
    return [f"{bundle.name} {bundle.version}  ({kind}){versions}", f"  {bundle.description}", f"  labels: {labels}"]


def _outline(bundle: Bundle) -> dict[str, Any]:
    return {
        "name": bundle.name,
        "version": bundle.version,
        "description": bundle.description,
        "modality": bundle.modality,
        "channels": bundle.channels,
        "spatial_dims": bundle.preprocessing.spatial_dims,
        "labels": [label.as_dict() for label in bundle.labels],
        "checksum": bundle.checksum,
    }


def _show(options: argparse.Namespace, console: Console) -> int:
    from ..bundles import ModelLibrary

    bundle = ModelLibrary().find(options.model)
    data = {
        **_outline(bundle),
        "directory": str(bundle.directory),
        "network": {"name": bundle.network_name, "arguments": bundle.network_arguments},
        "metadata": bundle.metadata,
        "card": bundle.card,
    }
    head = f"{bundle.name} {bundle.version}\n{bundle.directory}\nchecksum {bundle.checksum}"
    console.result(data, f"{head}\n\n{bundle.card.rstrip()}")
    return 0


def _verify(options: argparse.Namespace, console: Console) -> int:
    from ..bundles import ModelLibrary

    library = ModelLibrary()
    checked = []
    for name in options.models or _everything(library):
        try:
            bundle = library.find(name)
            bundle.build_network()
            checked.append({"name": name, "version": bundle.version, "checksum": bundle.checksum, "sound": True})
        except Exception as error:  # noqa: BLE001  one broken model must not hide the state of the others
            told = as_user_error(error)
            console.complain(told, error, about=name)
            checked.append({"name": name, "sound": False, "error": told.as_dict()})
    lines = [f"{item['name']}: {'sound' if item['sound'] else 'BROKEN'}" for item in checked]
    console.result({"models": checked}, "\n".join(lines) or "No model is installed.")
    return 0 if all(item["sound"] for item in checked) else 1


def _everything(library: ModelLibrary) -> list[str]:
    """References to all models, and to those versions of them that are not active."""
    entries = library.list()
    several = [entry.name for entry in entries if entry.versions > 1] + library.inactive()
    others = [version for name in several for version in library.history(name) if not version.active]
    return [entry.name for entry in entries] + [version.reference for version in others]


def _import(options: argparse.Namespace, console: Console) -> int:
    from ..bundles import ModelLibrary

    bundle = ModelLibrary().import_zip(options.zip, replace=options.replace)
    data = {**_outline(bundle), "directory": str(bundle.directory)}
    console.result(data, f"{bundle.name} {bundle.version} was installed in {bundle.directory}")
    return 0


def _export(options: argparse.Namespace, console: Console) -> int:
    from ..bundles import ModelLibrary

    path = ModelLibrary().export_zip(options.model, options.output, pictures=options.pictures)
    console.result({"model": options.model, "file": str(path)}, f"{options.model} was written to {path}")
    return 0


def _remove(options: argparse.Namespace, console: Console) -> int:
    from ..bundles import ModelLibrary

    ModelLibrary().remove(options.model, all_versions=options.all_versions)
    console.result({"removed": options.model}, f"{options.model} was removed")
    return 0


def _history(options: argparse.Namespace, console: Console) -> int:
    from ..bundles import ModelLibrary
    from ..errors import BundleError

    library = ModelLibrary()
    entries = library.history(options.name)
    problem = None
    try:
        library.directory(options.name)
    except BundleError as error:  # no version is active, or it cannot be told which: the list shows what there is
        problem = error
    log = [change.as_dict() for change in library.changes(options.name)]
    data = {"name": options.name, "versions": [_version(entry) for entry in entries], "log": log}
    lines = [options.name, *(line for entry in entries for line in _version_lines(entry))]
    if problem is not None:
        console.warn(str(problem))
    console.result({**data, "problem": None if problem is None else problem.as_dict()}, "\n".join(lines))
    return 0


def _version(entry: VersionEntry) -> dict[str, Any]:
    return {
        "version": entry.version,
        "reference": entry.reference,
        "origin": entry.origin,
        "active": entry.active,
        "parent_version": entry.parent_version,
        "date": entry.date,
        "metrics": entry.metrics,
        "directory": str(entry.directory),
        "checksum": None if entry.bundle is None else entry.bundle.checksum,
        "problem": entry.problem,
    }


def _version_lines(entry: VersionEntry) -> list[str]:
    """Such as "* 1.2.0  trained  2026-07-01  from liver-ct 1.1.0  Liver 0.9012"; a star marks the active one."""
    dice = {label: measures.get("mean_dice") for label, measures in entry.metrics.items()}
    details = [
        f"{'*' if entry.active else ' '} {entry.version or '?'}",
        entry.origin,
        (entry.date or "")[:10],
        f"from {entry.parent_version}" if entry.parent_version else "",
        ", ".join(f"{label} {'-' if value is None else f'{value:.4f}'}" for label, value in dice.items()),
    ]
    line = "  ".join(detail for detail in details if detail)
    return [line] if entry.problem is None else [f"{line}  BROKEN", f"    {entry.problem}"]


def _activate(options: argparse.Namespace, console: Console) -> int:
    from ..bundles import ModelLibrary

    bundle = ModelLibrary().activate(options.name, options.version, options.why)
    _tell_active(bundle, console)
    return 0


def _rollback(options: argparse.Namespace, console: Console) -> int:
    from ..bundles import ModelLibrary

    bundle = ModelLibrary().rollback(options.name, options.why)
    _tell_active(bundle, console)
    return 0


def _tell_active(bundle: Bundle, console: Console) -> None:
    data = {**_outline(bundle), "directory": str(bundle.directory)}
    console.result(data, f"{bundle.name} now stands for version {bundle.version} ({bundle.directory})")
