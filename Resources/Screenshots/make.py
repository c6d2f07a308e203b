"""Make the README's pictures from the real program: `.venv/bin/python Resources/Screenshots/make.py [LIVER_DATASET]`.

The second picture needs the validation cases of liver-ct, in Decathlon layout; without them it stays as it is.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from apformer.cli import main

HERE = Path(__file__).resolve().parent

with tempfile.TemporaryDirectory() as folder:
    if main(["demo", "-o", folder]) == 0:
        shutil.copyfile(Path(folder) / "hippocampi.png", HERE / "hippocampi.png")
if len(sys.argv) > 1:
    plot = str(HERE / "pareto-liver-ct.png")
    main(["benchmark", "pareto", "--bundle", "liver-ct", "--data", sys.argv[1], "--images", "70", "--plot", plot])
