"""The header's volume and model, and on the page Segment the list of models."""

from __future__ import annotations

from typing import Any

import qt
from apformer.errors import APFormerError
from slicer.i18n import tr as _

from ..scene import frames_of
from ..scene.provenance import of_node
from ..workflow import Card, Workflow, best
from .collaborators import Ui
from .hints import quietly, show_text
from .pages import fold
from .pictures import scaled

LOADED_MS = 200  # after the last volume came, before the only one is chosen
PICTURE_WIDTH = 300  # pixels, of the validation cases of the chosen model


class InputPanel:
    """Shows and changes what the state says of volume and model."""

    def __init__(self, ui: Ui, workflow: Workflow) -> None:
        self._ui, self._workflow = ui, workflow
        self._suggested = ""  # a reference
        self._looked_at: Any = None  # which voxels the suggestion is for
        self._entered = False  # nothing is chosen, and no worker begins to estimate, while another module is shown
        self._left_empty = False  # by the user, who chose no volume
        self._timer = qt.QTimer()  # an image is loaded node by node, and several may come
        self._timer.setSingleShot(True)
        self._timer.setInterval(LOADED_MS)
        self._timer.connect("timeout()", self._choose_only_volume)
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._choose_volume)
        ui.modelSearchEdit.connect("textChanged(QString)", self._search)
        ui.modelList.connect("currentRowChanged(int)", self._choose_row)
        ui.modelComboBox.connect("activated(int)", self._choose_title)
        ui.useSuggestionButton.connect("clicked(bool)", self._use_suggestion)
        workflow.state.changed.connect(self.refresh)
        workflow.versions.changed.connect(lambda _name: self.list_models())
        workflow.segmenting.segmented.connect(lambda *_: self._segmented())
        workflow.watch.added.connect(self._node_added)
        workflow.watch.loaded.connect(self._hide_maps)
        fold(ui.aboutButton, ui.aboutContents)
        self.list_models()
        self.refresh()

    # ---------------------------------------------------------------- showing

    def refresh(self) -> None:
        """Show what the state says."""
        if self._workflow.watch.is_closing:
            return
        state, ui = self._workflow.state, self._ui
        with quietly(ui.volumeSelector):
            ui.volumeSelector.setCurrentNode(state.volume)
        self._show_frames(state.volume)
        self._suggest(state.volume)
        self._mark_model(state.model)

    def list_models(self) -> None:
        """Read the models from the disk, as far as the search words allow."""
        self._fill_list()
        self._fill_titles()
        self._looked_at = None
        self._suggest(self._workflow.state.volume)

    def _fill_list(self) -> None:
        listed = self._ui.modelList
        with quietly(listed):
            listed.clear()
            for card in self._workflow.models.search(self._ui.modelSearchEdit.text):
                listed.addItem(_entry(card))
        self._mark_model(self._workflow.state.model)

    def _fill_titles(self) -> None:
        """All models, in the header."""
        titles = self._ui.modelComboBox
        with quietly(titles):
            titles.clear()
            for card in self._workflow.models.cards():
                titles.addItem(card.title, card.reference)
        self._mark_model(self._workflow.state.model)

    def _mark_model(self, reference: str) -> None:
        listed, titles = self._ui.modelList, self._ui.modelComboBox
        row = next((row for row in range(listed.count) if _reference(listed.item(row)) == reference), -1)
        with quietly(listed, titles):
            listed.setCurrentRow(row)
            titles.setCurrentIndex(titles.findData(reference))
        self._describe(reference)

    def _describe(self, reference: str) -> None:
        picture, text = None, ""
        if reference:
            try:
                card = self._workflow.models.find(reference)
            except APFormerError as error:
                text = f"{error.what} {error.remedy}"
            else:
                picture, text = card.picture, _details(card)
        pixmap = scaled(picture, PICTURE_WIDTH) if picture is not None else None
        self._ui.modelPicture.setPixmap(pixmap if pixmap is not None else qt.QPixmap())
        self._ui.modelPicture.setVisible(pixmap is not None)
        show_text(self._ui.modelDetailsLabel, text)

    def _show_frames(self, volume: Any) -> None:
        frames = None if volume is None else frames_of(volume)
        several = frames is not None and frames.count > 1
        for widget in (self._ui.everyFrameCheckBox, self._ui.everyFrameCheckBoxTitle):
            widget.setVisible(several)
        if frames is not None and several:
            text = _("every frame of the sequence ({count})").format(count=frames.count)
            self._ui.everyFrameCheckBox.setText(text)

    def _suggest(self, volume: Any) -> None:
        """What suits the volume; asked again only for other voxels, because they are all looked at."""
        image = None if volume is None else volume.GetImageData()
        looked_at = None if image is None else (volume.GetID(), image.GetMTime(), volume.GetName())
        if looked_at != self._looked_at:
            self._looked_at, self._suggested = looked_at, ""
            text, why = ("", "") if looked_at is None else self._find_suggestion()
            show_text(self._ui.suggestionLabel, text)
            self._ui.suggestionLabel.setToolTip(why)
        different = bool(self._suggested) and self._suggested != self._workflow.state.model
        self._ui.useSuggestionButton.setVisible(different)

    def _find_suggestion(self) -> tuple[str, str]:
        """In a line, and why."""
        try:
            suggestions = self._workflow.suggestions()
        except APFormerError as error:  # an image that cannot be segmented; the header says so too
            return f"{error.what} {error.remedy}", ""
        found = best(suggestions)
        if found is None:
            return ("", "") if suggestions else (_("No installed model can segment this kind of image."), "")
        self._suggested = found.card.reference
        if not self._workflow.state.model:
            self._workflow.state.model = self._suggested
        return _("Suggested: {model}").format(model=found.card.name), _("Because {reason}.").format(reason=found.why)

    def _segmented(self) -> None:
        """There are maps, and it is known how long the model takes."""
        self._hide_maps()
        self._fill_list()

    def _hide_maps(self) -> None:
        """Maps of uncertainty are volumes too, but nothing to segment."""
        scene = self._workflow.scene
        number = scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
        volumes = [scene.GetNthNodeByClass(index, "vtkMRMLScalarVolumeNode") for index in range(number)]
        made = [node.GetID() for node in volumes if of_node(node) is not None]
        self._ui.volumeSelector.sortFilterProxyModel().hiddenNodeIDs = made

    # ---------------------------------------------------------------- choosing

    def _choose_volume(self, node: Any) -> None:
        if not self._workflow.watch.is_closing:
            self._left_empty = node is None and not self._workflow.state.leaving
            self._workflow.state.volume = node

    def enter(self) -> None:
        """The module was opened: models and volumes may have come or gone meanwhile."""
        self._entered = True
        self.list_models()
        self._choose_only_volume()

    def leave(self) -> None:
        """Another module was opened."""
        self._entered = False

    def _choose_only_volume(self) -> None:
        """Choose the one volume there is, unless the user just chose none."""
        scene = self._workflow.scene
        if self._workflow.watch.is_closing or self._left_empty or not self._entered:
            return
        if scene.IsBatchProcessing() or scene.IsImporting():
            self._timer.start()
        else:
            self._workflow.choose_only_volume()

    def _node_added(self, node: Any) -> None:
        if node.IsA("vtkMRMLScalarVolumeNode") and not self._workflow.watch.is_closing:
            self._left_empty = False
            self._timer.start()

    def close(self) -> None:
        self._timer.stop()

    def _choose_row(self, row: int) -> None:
        item = self._ui.modelList.item(row)
        if item is not None:
            self._workflow.state.model = _reference(item)

    def _choose_title(self, row: int) -> None:
        self._workflow.state.model = str(self._ui.modelComboBox.itemData(row))

    def _use_suggestion(self, *_: Any) -> None:
        self._workflow.state.model = self._suggested

    def _search(self, *_: Any) -> None:
        self.list_models()


def _entry(card: Card) -> Any:
    item = qt.QListWidgetItem(f"{card.title}\n{card.summary}")
    item.setData(qt.Qt.UserRole, card.reference)
    item.setToolTip("\n".join(filter(None, (card.line, card.description))))
    return item


def _reference(item: Any) -> str:
    return str(item.data(qt.Qt.UserRole))


def _details(card: Card) -> str:
    """What does not fit into the list."""
    parts = [card.description]
    if card.dice:
        measured = ", ".join(f"{label} {dice:.2f}" for label, dice in card.dice.items())
        parts.append(_("Dice in {count} cases: {measured}.").format(count=card.cases, measured=measured))
    parts.append(_("{megabytes:.1f} MB.").format(megabytes=card.size_bytes / 1e6))
    if card.licence:
        parts.append(_("Licence of the training data: {licence}.").format(licence=card.licence))
    if card.intended_use:
        parts.append(f"{card.intended_use}.")
    return " ".join(part.strip() for part in parts if part)
