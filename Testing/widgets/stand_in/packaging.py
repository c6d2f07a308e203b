"""slicer.packaging and SampleData, as far as a module file asks of them: they note what they were asked."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any


@dataclass
class Pip:
    """What slicer.packaging was asked.

    Attributes:
        calls: (function, requirements as text, keywords), in their order.
        satisfied: whether pip_check says yes; None: look at what is installed.
        declined, fails: what happens to the next installation.
    """

    calls: list[tuple[str, list[str], dict[str, Any]]] = field(default_factory=list)
    satisfied: bool | None = None
    declined: bool = False
    fails: bool = False


def module(pip: Pip) -> ModuleType:
    """`slicer.packaging` of Slicer 5.12 (Base/Python/slicer/packaging.py): the functions an extension calls."""
    from packaging.requirements import Requirement

    def load_requirements(path: str | Path) -> list[Any]:
        lines = (line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
        return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]

    def pip_check(requirements: Any) -> bool:
        if pip.satisfied is not None:
            return pip.satisfied
        return all(_installed(requirement) for requirement in _listed(requirements, Requirement))

    def _run(name: str, requirements: Any, keywords: dict[str, Any]) -> None:
        if pip.fails:
            raise subprocess.CalledProcessError(1, "pip install")
        pip.calls.append((name, [str(requirement) for requirement in _listed(requirements, str)], keywords))

    def pip_ensure(
        requirements: Any, constraints: Any = None, skip_packages: Any = None, prompt_install: bool = True,
        prompt_restart: bool = True, requester: str | None = None, skip_in_testing: bool = True,
        show_progress: bool = True,
    ) -> None:  # fmt: skip
        missing = [entry for entry in _listed(requirements, Requirement) if not pip_check([entry])]
        if not missing:
            return
        if pip.declined and prompt_install:
            raise RuntimeError("User declined package installation")
        _run("pip_ensure", missing, {"requester": requester, "prompt_install": prompt_install})

    def pip_install(
        requirements: Any, constraints: Any = None, no_deps_requirements: Any = None, skip_packages: Any = None,
        blocking: bool = True, show_progress: bool = True, requester: str | None = None, parent: Any = None,
        logCallback: Any = None, completedCallback: Any = None,
    ) -> None:  # fmt: skip
        _run("pip_install", requirements, {"requester": requester})

    def pip_uninstall(requirements: Any, *_: Any, **__: Any) -> None:
        _run("pip_uninstall", requirements, {})

    made = ModuleType("slicer.packaging")
    made.__dict__.update(load_requirements=load_requirements, pip_check=pip_check, pip_ensure=pip_ensure,
                         pip_install=pip_install, pip_uninstall=pip_uninstall)  # fmt: skip
    return made


def sample_data() -> ModuleType:
    """The module SampleData: `registered` has what was registered."""
    made = ModuleType("SampleData")
    registered: list[dict[str, Any]] = []

    def register(category: str = "", sampleName: str = "", uris: Any = None, fileNames: Any = None,
                 nodeNames: Any = None, thumbnailFileName: Any = None, loadFileType: Any = None, checksums: Any = None,
                 **keywords: Any) -> None:  # fmt: skip
        registered.append({"category": category, "sampleName": sampleName, "uris": uris, "fileNames": fileNames,
                           "nodeNames": nodeNames, "thumbnailFileName": thumbnailFileName, "checksums": checksums,
                           "loadFileType": loadFileType, **keywords})  # fmt: skip

    made.__dict__.update(
        registered=registered, SampleDataLogic=SimpleNamespace(registerCustomSampleDataSource=register)
    )
    return made


def _listed(requirements: Any, kind: Any) -> list[Any]:
    entries = requirements if isinstance(requirements, list) else [requirements]
    return [kind(entry) if isinstance(entry, str) else entry for entry in entries]


def _installed(requirement: Any) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False
