"""`apformer models`: the models on this computer."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from . import options as option
from .console import Console, as_user_error

if TYPE_CHECKING:
    from ..bundles import Bundle, ModelEntry


def add_parser(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("models", help="list, show, verify, import, export, remove models")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    def action(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(name, parents=[shared], help=text, description=text)
        added.set_defaults(run=function)
        return added

    action("list", _list, "what is installed")
    show = action("show", _show, "what a model is for, and its card")
    show.add_argument("model", metavar="NAME|DIR")
    verify = action("verify", _verify, "check files, checksums and weights")
    verify.add_argument("models", nargs="*", metavar="NAME|DIR", help="all that are installed when none is named")
    imported = action("import", _import, "install a model from a zip file")
    imported.add_argument("zip", type=option.path, metavar="ZIP")
    imported.add_argument("--replace", action="store_true", help="replace an installed model of that name")
    export = action("export", _export, "write a model to a zip file")
    export.add_argument("model", metavar="NAME|DIR")
    export.add_argument("-o", "--output", type=option.path, default=".", metavar="ZIP", help="zip file, or a folder")
    remove = action("remove", _remove, "remove a model that was imported or trained")
    remove.add_argument("name", metavar="NAME")


def _list(options: argparse.Namespace, console: Console) -> int:
    from ..bundles import ModelLibrary

    library = ModelLibrary()
    entries = library.list()
    lines = [line for entry in entries for line in _entry_lines(entry)]
    text = "\n".join(lines) or f"No model is installed. Models are kept in {library.user_root}."
    console.result({"models": [_entry(entry) for entry in entries], "user_folder": str(library.user_root)}, text)
    return 0


def _entry(entry: ModelEntry) -> dict[str, Any]:
    sound = {} if entry.bundle is None else _outline(entry.bundle)
    return {
        "name": entry.name,
        "version": entry.version,
        **sound,
        "directory": str(entry.directory),
        "read_only": entry.read_only,
        "problem": entry.problem,
    }


def _entry_lines(entry: ModelEntry) -> list[str]:
    if entry.bundle is None:
        return [f"{entry.name}  BROKEN", f"  {entry.problem}"]
    bundle = entry.bundle
    labels = ", ".join(f"{label.value} {label.name}" for label in bundle.labels)
    kind = f"{bundle.modality}, {bundle.preprocessing.spatial_dims}D"
    return [f"{bundle.name} {bundle.version}  ({kind})", f"  {bundle.description}", f"  labels: {labels}"]


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
    for name in options.models or [entry.name for entry in library.list()]:
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


def _import(options: argparse.Namespace, console: Console) -> int:
    from ..bundles import ModelLibrary

    bundle = ModelLibrary().import_zip(options.zip, replace=options.replace)
    data = {**_outline(bundle), "directory": str(bundle.directory)}
    console.result(data, f"{bundle.name} {bundle.version} was installed in {bundle.directory}")
    return 0


def _export(options: argparse.Namespace, console: Console) -> int:
    from ..bundles import ModelLibrary

    path = ModelLibrary().export_zip(options.model, options.output)
    console.result({"model": options.model, "file": str(path)}, f"{options.model} was written to {path}")
    return 0


def _remove(options: argparse.Namespace, console: Console) -> int:
    from ..bundles import ModelLibrary

    ModelLibrary().remove(options.name)
    console.result({"removed": options.name}, f"{options.name} was removed")
    return 0
