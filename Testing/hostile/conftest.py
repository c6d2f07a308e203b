"""Tests of this folder use the helpers of the engine's, and their own."""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [path for path in (str(_HERE), str(_HERE.parent / "engine")) if path not in sys.path]
