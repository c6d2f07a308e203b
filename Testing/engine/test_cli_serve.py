"""`apformer serve` hands its words to the browser host, and says so when there is none."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import pytest
from apformer.cli import main


class Host:
    """A process that the first Ctrl-C does not end."""

    def __init__(self, command: list[str]) -> None:
        self.command, self.waited = command, 0

    def wait(self) -> int:
        self.waited += 1
        if self.waited == 1:
            raise KeyboardInterrupt
        return 3


def test_every_word_is_the_hosts_and_its_end_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Host] = []

    def start(command: list[str]) -> Host:
        started.append(Host(command))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    assert main(["serve", "--port", "8100", "--help", "--users", "2"]) == 3
    assert started[0].command == [
        sys.executable, "-m", "APFormerSlicerLib.web", "--port", "8100", "--help", "--users", "2",
    ]  # fmt: skip
    assert started[0].waited == 2


def test_without_the_host_it_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> Any:
        return None if name == "APFormerSlicerLib" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    assert main(["serve"]) == 1
    assert "run.py serve" in capsys.readouterr().err
