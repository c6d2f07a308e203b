"""Make the README's pictures from the real program: `.venv/bin/python Resources/Screenshots/make.py`, after a demo."""

import shutil
import tempfile
from pathlib import Path

from apformer.cli import main

HERE = Path(__file__).resolve().parent

with tempfile.TemporaryDirectory() as folder:
    if main(["demo", "-o", folder]) == 0:
        shutil.copyfile(Path(folder) / "hippocampi.png", HERE / "hippocampi.png")
