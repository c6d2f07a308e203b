"""What a model segments: each label's value, name, colour and SNOMED CT codes, as Slicer shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..names import twice
from .fields import Fields, check_integer, malformed

# Results are uint8 label maps with 0 as background.
HIGHEST_LABEL = 255
LONGEST_NAME = 64
# A DICOM code meaning has at most 64 characters; code values and schemes are shorter.
LONGEST_CODE_PART = 64


@dataclass(frozen=True)
class Code:
    """A coded concept, as DICOM and Slicer's terminology write it, e.g. ("SCT", "10200004", "Liver")."""

    scheme: str
    value: str
    meaning: str

    def __post_init__(self) -> None:
        fields = Fields(vars(self), "A terminology code")
        for name in ("scheme", "value", "meaning"):
            text = fields.text(name, LONGEST_CODE_PART)
            if any(mark in text for mark in "~^|\\\n\t"):  # separators of Slicer's terminology entries and of DICOM
                raise malformed(f"A terminology code's {name} contains one of ~ ^ | \\ or a line break.")

    def as_dict(self) -> dict[str, str]:
        """The three texts, ready for JSON."""
        return {"scheme": self.scheme, "value": self.value, "meaning": self.meaning}

    @staticmethod
    def from_fields(fields: Fields) -> Code:
        """The code that a JSON object describes; BundleError when it does not describe one."""
        fields.only(("scheme", "value", "meaning"))
        return Code(fields.text("scheme"), fields.text("value"), fields.text("meaning"))


@dataclass(frozen=True)
class Label:
    """One structure: its voxel value (1 to 255), its name, its display colour (RGB, 0 to 255) and its terminology.

    `category`, `type` and `modifier` are Slicer's terminology entry: for example Anatomical structure, Hippocampus,
    Left.
    """

    value: int
    name: str
    color: tuple[int, int, int]
    category: Code
    type: Code
    modifier: Code | None = None

    def __post_init__(self) -> None:
        check_integer(self.value, 1, HIGHEST_LABEL, "A label's value")
        name = Fields(vars(self), f"Label {self.value}").text("name", LONGEST_NAME)
        if "\n" in name or "\t" in name:
            raise malformed(f"Label {self.value} has a line break or tab in its name.")
        if not isinstance(self.color, tuple) or len(self.color) != 3:
            raise malformed(f"Label {self.value} must have a colour of three numbers, red, green and blue.")
        for part in self.color:
            check_integer(part, 0, 255, f"Label {self.value}, each part of its colour")
        if not (isinstance(self.category, Code) and isinstance(self.type, Code)):
            raise malformed(f"Label {self.value} must have a category and a type code.")
        if not isinstance(self.modifier, Code | None):
            raise malformed(f"Label {self.value} must have a code or None as its modifier.")

    def as_dict(self) -> dict[str, Any]:
        """The label as it stands in metadata.json."""
        modifier = self.modifier.as_dict() if self.modifier else None
        return {
            "value": self.value,
            "name": self.name,
            "color": list(self.color),
            "category": self.category.as_dict(),
            "type": self.type.as_dict(),
            "modifier": modifier,
        }

    @staticmethod
    def from_fields(fields: Fields) -> Label:
        """The label that a JSON object describes; BundleError when it does not describe one."""
        fields.only(("value", "name", "color", "category", "type", "modifier"))
        red, green, blue = _three(fields)
        return Label(
            value=fields.integer("value", 1, HIGHEST_LABEL),
            name=fields.text("name"),
            color=(red, green, blue),
            category=Code.from_fields(fields.section("category")),
            type=Code.from_fields(fields.section("type")),
            modifier=Code.from_fields(fields.section("modifier")) if fields.has("modifier") else None,
        )


def _three(fields: Fields) -> tuple[int, int, int]:
    color = fields.items("color", 3)
    if len(color) != 3:
        raise malformed(f"{fields.where}, 'color' must have three numbers, red, green and blue.")
    return color[0], color[1], color[2]


def check_labels(labels: Sequence[Label]) -> tuple[Label, ...]:
    """`labels` as a tuple when there is at least one and no value or name (see `names`) is used twice; BundleError
    otherwise."""
    if not labels:
        raise malformed("The model names no labels.")
    values = [label.value for label in labels]
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise malformed(f"Two labels share the value {repeated[0]}.")
    alike = twice(label.name for label in labels)
    if alike is not None:
        raise malformed(
            f"Two labels share the name {alike[0]}." if alike[0] == alike[1] else
            f"The labels {alike[0]!r} and {alike[1]!r} have the same name: case and blanks do not count."
        )  # fmt: skip
    return tuple(labels)
