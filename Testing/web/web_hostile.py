"""Values that somebody might send in place of what a page sends."""

from __future__ import annotations

from typing import Any

DEEP: Any = []  # a message with it is refused as a whole
for _ in range(200):
    DEEP = [DEEP]

HOSTILE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**63,
    -(2**63),
    0.5,
    float("nan"),
    float("inf"),
    float("-inf"),
    1e308,
    -1e308,
    "",
    "0",
    "nan",
    "1e999",
    "-1",
    "a" * 100_000,
    "\x00",
    "\u202e\u0301" * 20,
    "../../../../etc/passwd",
    "/etc/passwd",
    "C:\\Windows\\win.ini",
    "file:///etc/passwd",
    "vtkMRMLScene1",
    "vtkMRMLCameraNode1",
    "vtkMRMLSliceNodeRed",
    "vtkMRMLScriptedModuleNode1",
    "vtkMRMLScalarVolumeNode99",
    "__class__",
    "{{ constructor.constructor('return 1')() }}",
    "<img src=x onerror=alert(1)>",
    "'; DROP TABLE cases; --",
    "$(touch /tmp/pwned)",
    "liver-ct@../../x",
    b"\xff\xfe",
    [],
    [None],
    [1, 2, 3],
    ["a"] * 1000,
    [float("nan"), float("inf")],
    ["uncertainty", "uncertainty", {}],
    {},
    {"a": 1},
    {"folder": "/etc", "uid": "1"},
    {"_filter": ["a"]},
    {"__class__": "x"},
    DEEP,
)
