"""The server's folders taken out of what a user is told: a path says where things are on a computer of somebody else.

Of a path only the last part stays, which the user may know: the name of a file that was uploaded. Whoever works on
their own computer sees paths as they are, but for the session's private folder, which says nothing to anybody.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

# A slash or a drive, and at least one folder: not "a / b", "mg/mL", "</div>" or the address of a web page. A folder's
# name may have single blanks, which a sentence has too: only names of known folders are followed over a blank.
_PATH = re.compile(r"""(?<![\w.)\]:/\\])(?:[A-Za-z]:[\\/]|\\\\|/(?!/))(?:[^\s'"`<>|:;,*?()/\\]+[\\/])+""")
_WITHIN = r"(?:[\\/](?:uploads|downloads|tmp)[\\/][\w.-]+(?=[\\/]))*"  # a session's folders, and their random names
_NAMES = ("id", "uid", "reference", "value")  # what a page sends back to name something
_OF_TRAME = "trame__"  # templates, names of scripts


class Hiding:
    """
    Args:
        private: the session's folder, hidden from everybody.
        others: further folders of the server. all_paths: hide every path, known or not: the user is not whose server it
            is.
        own: names of values that the page itself wrote, which it gets back as they are.
    """

    def __init__(self, private: Path, others: Collection[Path], all_paths: bool, own: Collection[str]) -> None:
        known = [private, *others] if all_paths else [private]
        folders = sorted({form for folder in known for form in _forms(folder)}, key=len, reverse=True)
        self._known = re.compile(rf"(?:{'|'.join(map(re.escape, folders))}){_WITHIN}(?:[\\/]|(?![\w-]))")
        self._all_paths, self._own = all_paths, own

    def of_text(self, text: str) -> str:
        """The text without paths."""
        shorter = self._known.sub("", text) if os.sep in text or "/" in text else text
        return _PATH.sub("", shorter) if self._all_paths else shorter

    def of_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Values of a page's state, by name."""
        return {
            name: value if name.startswith(_OF_TRAME) or name in self._own else self._of_value(value)
            for name, value in state.items()
        }

    def _of_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.of_text(value)
        if isinstance(value, dict):
            return {key: one if key in _NAMES else self._of_value(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._of_value(one) for one in value]
        return value


def _forms(folder: Path) -> set[str]:
    """How a folder may be written: as it was named, and with its links followed. Never the root of a disk."""
    found = {str(folder.absolute()), str(folder.resolve())}
    return {one for one in found if len(Path(one).parts) > 1}


def server_folders() -> list[Path]:
    """Where this program and its user keep things."""
    package = Path(__file__).resolve().parents[3]
    return [package, Path(sys.prefix), Path(tempfile.gettempdir()), Path.cwd(), Path.home()]
