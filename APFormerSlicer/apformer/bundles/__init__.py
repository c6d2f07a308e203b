"""A trained model on disk: load, verify, save, import, export; the versions of it, and which one is active."""

from .bundle import Bundle, load_bundle
from .catalogue import ModelEntry, VersionEntry
from .labels import Code, Label
from .library import InstalledError, ModelLibrary, bundled_models, user_models
from .preprocessing import Preprocessing
from .writer import save_bundle

__all__ = [
    "Bundle",
    "Code",
    "InstalledError",
    "Label",
    "ModelEntry",
    "ModelLibrary",
    "Preprocessing",
    "VersionEntry",
    "bundled_models",
    "load_bundle",
    "save_bundle",
    "user_models",
]
