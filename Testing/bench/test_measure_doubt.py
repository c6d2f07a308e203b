"""The study of whether doubt finds what is wrong: its table, and its cases on a data set of two."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves it out

from measure_doubt import DATA, ROOT, Judged, judged, line


def test_the_table_tells_order_and_what_would_be_corrected_first() -> None:
    cases = [Judged(doubt / 8, doubt / 10) for doubt in range(8)]
    told = re.findall(r"-?\d+\.\d+", line("m", cases).partition("(")[0] + line("m", cases).partition(")")[2])
    assert told == ["1.00", "0.350", "0.650", "0.650"]
    cases[7] = Judged(0.0, 0.7)  # the worst is doubted least
    assert line("m", cases).split()[2] != "1.00"


def test_every_model_of_the_program_is_measured() -> None:
    assert sorted(DATA) == sorted(path.name for path in (ROOT / "Resources" / "Models").iterdir())


def test_cases_are_those_that_the_model_was_validated_on(data_root: Path) -> None:
    folder, config = DATA["hippocampus-mr"]
    cases = judged("hippocampus-mr", data_root / folder, ROOT / "Configs" / config)
    first = next(cases)
    assert 0.0 < first.doubt < 1.0 and 0.0 < first.wrong < 0.5
