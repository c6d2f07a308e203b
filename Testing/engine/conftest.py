"""Lets the tests here import the sample builders that lie beside them by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves it out
