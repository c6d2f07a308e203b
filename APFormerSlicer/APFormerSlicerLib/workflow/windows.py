"""How bright a CT is shown: presets, what the model sees, and one that is set by itself when a model is chosen."""

from __future__ import annotations

from typing import Any

from apformer.errors import APFormerError, InputError

from ..scene import to_volume
from ..scene.windows import PRESETS, Window, has_window, nearest, show_window, show_window_unasked
from .cards import Card
from .models import Models
from .scene_watch import SceneWatch
from .state import State
from .suggestion import modality_of

AS_MODEL = "As the model sees it"
_CT = "CT"
_MOST_GUESSES = 100
_guessed: dict[int, bool] = {}  # time of the last change -> whether the values are a CT's: a look takes milliseconds


class Windows:
    """Windows of the chosen volume, where it is a CT.

    When volume or model become others, the model is for CT and nobody has chosen how the volume is shown, it is shown
    with the preset that is nearest to what the model sees: the whole range of a CT leaves soft tissue one gray.
    """

    def __init__(self, watch: SceneWatch, state: State, models: Models) -> None:
        self._watch, self._state, self._models = watch, state, models
        self._seen: tuple[Any, str] = (None, "")
        state.changed.connect(self._look)

    def offered(self) -> list[Window]:
        """What the user can choose for the chosen volume: the presets and, of a model that has one, its own; nothing
        where the volume is no CT."""
        if not _is_ct(self._state.volume):
            return []
        card = self._card()
        return [*PRESETS, *([] if card is None or card.window is None else [_own(card.window)])]

    def shown(self) -> Window | None:
        """The one of those offered that the chosen volume is shown with; None where it is another one."""
        return next((window for window in self.offered() if has_window(self._state.volume, window)), None)

    def show(self, window: Window, volume_node: Any = None) -> None:
        """Show a volume with the window; without one, the chosen volume.

        Raises:
            InputError: there is no volume, or it is no CT.
        """
        node = volume_node or self._state.volume
        if not _is_ct(node):
            name = "No volume is chosen" if node is None else f"{node.GetName()} is not known to be a CT"
            raise InputError(
                f"{name}.",
                f"The window {window.name} is a range of Hounsfield units, which only CT has.",
                "Choose a CT; the brightness of other images is set by dragging in a slice view.",
            )
        show_window(node, window)

    def stop(self) -> None:
        self._state.changed.disconnect(self._look)

    def _look(self) -> None:
        if self._watch.is_closing:
            return
        seen = self._state.volume, self._state.model
        if seen == self._seen:
            return
        self._seen = seen
        card = self._card()
        if card is not None and card.modality == _CT and _is_ct(seen[0]):
            show_window_unasked(seen[0], PRESETS[0] if card.window is None else nearest(_own(card.window)))

    def _card(self) -> Card | None:
        try:
            return self._models.find(self._state.model)
        except APFormerError:  # told where it is chosen
            return None


def _own(bounds: tuple[float, float]) -> Window:
    return Window.between(AS_MODEL, *bounds)


def _is_ct(volume_node: Any) -> bool:
    """By what is known of the image or, where nothing is, by values that only CT has."""
    if volume_node is None or volume_node.IsA("vtkMRMLVectorVolumeNode"):
        return False
    try:
        volume = to_volume(volume_node)
    except InputError:
        return False
    if volume.modality is not None:
        return volume.modality == _CT
    changed = int(volume_node.GetImageData().GetMTime())  # no two VTK objects share a time
    if changed not in _guessed:
        if len(_guessed) >= _MOST_GUESSES:
            _guessed.clear()
        _guessed[changed] = modality_of(volume) == _CT
    return _guessed[changed]
