"""The page Fine-tune: which labels are learned, and which label of the base each of them is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import qt
from apformer.names import find, same
from slicer.i18n import tr as _

from .collaborators import Ui
from .hints import Hints, quietly
from .tables import fill, stretch


class LabelsTable:
    """A check box and a choice per label of the data set, and whether the base's other labels are dropped.

    Args:
        changed: called when the user changed something.
    """

    def __init__(self, ui: Ui, changed: Callable[..., None]) -> None:
        self._table, self._drop, self._changed = ui.labelsTable, ui.replaceCheckBox, changed
        self._hints = Hints()
        self._names: list[str] = []
        self._base: tuple[str, ...] = ()
        self._partners: list[Any] = []  # a combo box per row
        stretch(self._table, 0)
        self._table.connect("itemChanged(QTableWidgetItem*)", changed)
        self._drop.connect("toggled(bool)", changed)

    def offer(self, names: Sequence[str], base: Sequence[str]) -> None:
        """Show the labels `names` of the data set and what they can be in a base with the labels `base`."""
        if (list(names), tuple(base)) == (self._names, self._base):
            return
        learned = self.learned() if self._names == list(names) else names
        self._names, self._base = list(names), tuple(base)
        with quietly(self._table):
            fill(self._table, names, [(name, "") for name in names])
            self._partners = [self._choice(row) for row in range(len(names))]
        self.show(learned, {}, bool(base) and self.drops)

    def show(self, learned: Sequence[str], mapping: Mapping[str, str], drops: bool) -> None:
        """Show what was chosen; no label learned stands for all of them."""
        with quietly(self._table, self._drop, *self._partners):
            for row, name in enumerate(self._names):
                wanted = not learned or name in learned
                self._table.item(row, 0).setCheckState(qt.Qt.Checked if wanted else qt.Qt.Unchecked)
                self._partners[row].setCurrentIndex(max(0, self._partners[row].findData(mapping.get(name, ""))))
            self._drop.setChecked(drops)
        self._hints.allow(self._drop, (bool(self._base), _("There is no base whose labels could be dropped.")))

    @property
    def names(self) -> Sequence[str]:
        return self._names

    @property
    def drops(self) -> bool:
        """Whether the base's other labels are dropped."""
        return bool(self._base) and bool(self._drop.checked)

    def learned(self) -> list[str]:
        """The labels that are checked."""
        checked = qt.Qt.Checked
        return [name for row, name in enumerate(self._names) if self._table.item(row, 0).checkState() == checked]

    def mapping(self) -> dict[str, str]:
        """The site's name of a checked label -> the base's, where these differ."""
        found = {}
        for row, name in enumerate(self._names):
            partner = self._partners[row]
            value = str(partner.itemData(partner.currentIndex) or "")
            if value and name in self.learned():
                found[name] = value
        return found

    def _choice(self, row: int) -> Any:
        """The base's label of the same name, if there is one, else a new one; or any other of the base."""
        name, box = self._names[row], qt.QComboBox()
        box.addItem(_("new") if find(name, self._base) is None else _("the same name"), "")
        for other in self._base:
            if not same(other, name):
                box.addItem(other, other)
        box.setEnabled(bool(self._base))
        tip = _("Which label of the base {label} is; what the base knows of that is used.").format(label=name)
        box.setToolTip(tip if self._base else _("There is no base: every label is new."))
        box.connect("currentIndexChanged(int)", self._changed)
        self._table.setCellWidget(row, 1, box)
        return box
