"""A trained model on disk: load, verify, save, import, export."""

from .bundle import Bundle, load_bundle
from .labels import Code, Label
from .library import ModelEntry, ModelLibrary, bundled_models, user_models
from .preprocessing import Preprocessing
from .writer import save_bundle

__all__ = [
    "Bundle",
    "Code",
    "Label",
    "ModelEntry",
    "ModelLibrary",
    "Preprocessing",
    "bundled_models",
    "load_bundle",
    "save_bundle",
    "user_models",
]
