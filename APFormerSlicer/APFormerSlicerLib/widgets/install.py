"""The first use: one explanation, then torch through the extension PyTorch and the rest through slicer.packaging."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .aside import Asides
from .packages import (
    BROKEN,
    PRESENT,
    InstallError,
    Package,
    check_path_length,
    look,
    probe,
    python_program,
    self_check,
    site_packages,
)

REQUESTER = "APFormer"
_TORCH = "torch"
_WHEELS_SETTING, _PROVED_SETTING = "APFormer/Wheels", "APFormer/Proved"
# What these functions are known to raise when pip or the import after it fails.
_FAILURES = (subprocess.CalledProcessError, RuntimeError, ValueError, ImportError, OSError)


@dataclass(frozen=True)
class Source:
    """Where packages come from. `wheels`: a folder of wheel files, for computers without internet."""

    wheels: Path | None = None


Ask = Callable[[str, str, str], Source | None]
"""Asks where to install from: (what, meaning, details) -> an answer, None when it is not wanted."""


class Install:
    """The packages of requirements.txt, and for fine-tuning those of requirements-training.txt besides.

    Args:
        resources: the folder of the two files.
        ask: the one question; by default a window.
    """

    def __init__(self, resources: Path, ask: Ask | None = None) -> None:
        self._resources, self._ask = resources, ask or ask_user
        self._seen: dict[bool, list[Package]] = {}  # by `training`, where all was seen to be there
        self._proving = False  # whether a process is trying to import them now
        self._found: dict[str, dict[str, str]] = {}  # versions -> what such a process could not import
        self._asides = Asides()

    def missing(self, training: bool = False) -> bool:
        """Whether something is not installed; quick, and asks nothing."""
        return bool(self._lacking(training))

    def prove(self) -> None:
        """Find out, while the user does something else, whether what is there can be imported: `ensure` need not then.

        To be called when the panel opens. It takes seconds, and only the first time with new versions.
        """
        if self._proving:
            return
        proved = {training: str(slicer.util.settingsValue(_setting(training), "")) for training in (False, True)}
        self._proving = True
        self._asides.start(partial(self._try_all, proved), self._hear)

    def close(self) -> None:
        """Hear no more of what is being proved."""
        self._asides.close()

    def ensure(self, training: bool = False) -> bool:
        """Explain, ask and install where something is missing; False when the user does not want it.

        The first time with new versions, a process like the worker's tries to import them: a half-installed package
        has its metadata, and fails only then. While `prove` is at it, nobody waits: the job itself will tell.

        Raises:
            InstallError: it could not be installed, or does not work.
        """
        lacking = self._lacking(training) or self._unusable(training)
        if not lacking:
            return True
        self._seen.clear()
        _check_possible(lacking)
        source = self._ask(*_explain(lacking, training))
        if source is None:
            return False
        _install(lacking, source)
        self._require_success(training)
        return True

    def report(self) -> str:
        """What is installed and what the computer has; takes seconds."""
        packages = self._packages(training=True)
        python = python_program()
        with slicer.util.WaitCursor():
            return self_check(packages, probe(python, _modules(packages)), python)

    def _packages(self, training: bool) -> list[Package]:
        """As `_look`; what was seen to be complete is not looked at again."""
        if training not in self._seen:
            packages = self._look(training)
            if not all(package.state == PRESENT for package in packages):
                return packages
            self._seen[training] = packages
        return self._seen[training]

    def _look(self, training: bool) -> list[Package]:
        """One for each name; the bounds of fine-tuning come after, and replace, those of segmenting."""
        files = ["requirements.txt", *(["requirements-training.txt"] if training else [])]
        listed = [entry for name in files for entry in slicer.packaging.load_requirements(self._resources / name)]
        return look(list({entry.name: entry for entry in listed}.values()))

    def _lacking(self, training: bool) -> list[Package]:
        return [package for package in self._packages(training) if package.state != PRESENT]

    def _unusable(self, training: bool) -> list[Package]:
        problems = self._problems(training)
        return [replace(one, state=BROKEN) for one in self._packages(training) if one.module in problems]

    def _problems(self, training: bool) -> dict[str, str]:
        """Module -> why it cannot be imported. Asked until all can, then once for each set of versions."""
        packages = self._packages(training)
        versions = _versions(packages)
        if slicer.util.settingsValue(_setting(training), "") == versions or self._proving:
            return {}
        problems = self._found.pop(versions, None)  # asked again the next time: it may have been repaired
        if problems is None:
            with slicer.util.WaitCursor():
                problems = probe(python_program(), _modules(packages)).problems
        if not problems:
            qt.QSettings().setValue(_setting(training), versions)
        return problems

    def _try_all(self, proved: dict[bool, str]) -> list[tuple[bool, str, dict[str, str]]]:
        """(training, versions, problems) of what is there and was not proved yet; in a thread of its own."""
        found = []
        for training, before in proved.items():
            packages = self._look(training)
            versions = _versions(packages)
            if versions != before and all(package.state == PRESENT for package in packages):
                found.append((training, versions, probe(python_program(), _modules(packages)).problems))
        return found

    def _hear(self, found: list[tuple[bool, str, dict[str, str]]] | None, _error: BaseException | None) -> None:
        """What could not be tried is tried by the next `ensure`."""
        self._proving = False
        for training, versions, problems in found or ():
            self._found[versions] = problems
            if not problems:
                qt.QSettings().setValue(_setting(training), versions)

    def _require_success(self, training: bool) -> None:
        left = self._lacking(training)
        if left:
            raise InstallError(
                f"After the installation these are still not right: {'; '.join(package.line for package in left)}.",
                "No job can run without them.",
                "Restart Slicer and try again; if it happens again, copy the self-check and ask for help.",
            )
        problems = self._problems(training)
        if problems:
            why = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
            raise InstallError(f"Installed, but it cannot be loaded: {why}.", *_unloadable(why))


def ask_user(what: str, meaning: str, details: str) -> Source | None:
    """A window; the safe answer, Cancel, is the default. With `Slicer --testing` nobody is there to ask."""
    if slicer.app.testingEnabled():
        return Source()
    box = qt.QMessageBox(slicer.util.mainWindow())
    box.setIcon(qt.QMessageBox.Question)
    box.setWindowTitle(REQUESTER)
    box.setText(what)
    box.setInformativeText(meaning)
    box.setDetailedText(details)
    online = box.addButton(_("Install"), qt.QMessageBox.AcceptRole)
    offline = box.addButton(_("From a folder..."), qt.QMessageBox.ActionRole)
    offline.setToolTip(_("For computers without internet: a folder of wheel files (*.whl) from another computer"))
    box.addButton(qt.QMessageBox.Cancel)
    box.setDefaultButton(qt.QMessageBox.Cancel)
    box.exec_()
    if box.clickedButton() == online:
        return Source()
    return ask_wheels() if box.clickedButton() == offline else None


def ask_wheels() -> Source | None:
    """The folder of wheels, which is remembered."""
    start = slicer.util.settingsValue(_WHEELS_SETTING, "")
    chosen = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder with the wheel files"), start)
    if not chosen:
        return None
    qt.QSettings().setValue(_WHEELS_SETTING, chosen)
    return Source(Path(chosen))


def _versions(packages: Sequence[Package]) -> str:
    """Those of Python and of the packages, as a text."""
    return f"Python {sys.version.split()[0]}; {'; '.join(f'{one.name} {one.version}' for one in packages)}"


def _setting(training: bool) -> str:
    return f"{_PROVED_SETTING}{'Training' if training else ''}"


def _modules(packages: Sequence[Package]) -> list[str]:
    return [package.module for package in packages]


def _explain(lacking: Sequence[Package], training: bool) -> tuple[str, str, str]:
    """The one explanation: (what, meaning, details)."""
    work = _("Fine-tuning") if training else _("Segmenting")
    repairs = any(package.state == BROKEN for package in lacking)
    what = _("{work} needs Python packages that are damaged.") if repairs else _("{work} needs some Python packages.")
    meaning = _(
        "They are installed once, into Slicer's own Python. With torch, up to 3 GB are downloaded, which takes some "
        "minutes. Nothing about you, your images or your patients is sent."
    )
    return what.format(work=work), meaning, "\n".join(package.line for package in lacking)


def _check_possible(lacking: Sequence[Package]) -> None:
    """Raises InstallError when the installation of torch could not end well."""
    torch = next((package for package in lacking if package.name == _TORCH), None)
    if torch is None:
        return
    check_path_length()
    if torch.version is not None and _TORCH in sys.modules:
        raise InstallError(
            f"torch {torch.version} has to be replaced, but another module of Slicer is using it.",
            "Files in use cannot be replaced safely.",
            "Restart Slicer, and start here before you use other modules.",
        )


def _install(lacking: Sequence[Package], source: Source) -> None:
    damaged = [package.name for package in lacking if package.state == BROKEN]
    if damaged:
        _attempt(lambda: slicer.packaging.pip_uninstall(damaged), *_cannot_remove(damaged))
    wanted = [package.requirement for package in lacking]
    if source.wheels is not None:
        _install_wheels(wanted, source.wheels)
        return
    for torch in (entry for entry in wanted if entry.name == _TORCH):
        _install_torch(torch)
    others = [entry for entry in wanted if entry.name != _TORCH]
    _attempt(
        # Asked already; and with `Slicer --testing` pip_ensure does nothing unless it is told to.
        lambda: slicer.packaging.pip_ensure(others, prompt_install=False, requester=REQUESTER, skip_in_testing=False),
        _("The packages could not be installed"),
        _("Either the internet cannot be reached, or the disk is full or may not be written."),
        _("Check both and try again; without internet, choose a folder of wheel files."),
    )


def _install_wheels(wanted: Sequence[Any], folder: Path) -> None:
    words = ["--no-index", "--find-links", str(folder), *map(str, wanted)]
    quoted = " ".join(f'"{requirement}"' for requirement in wanted)
    _attempt(
        lambda: slicer.packaging.pip_install(words, requester=REQUESTER),
        _("The packages could not be installed from {folder}").format(folder=folder),
        _("A wheel file is missing there, or is meant for another Python or system."),
        _("On a like computer with internet, fill the folder with: {command}").format(
            command=f"PythonSlicer -m pip download -d FOLDER {quoted}"
        ),
    )


def _install_torch(requirement: Any) -> None:
    """Through the extension PyTorch, which finds the build for the graphics card.

    Its `torchInstalled` is not asked: it imports torch into Slicer's process.
    """
    try:
        import PyTorchUtils
    except ImportError as error:
        raise InstallError(
            "Slicer's extension PyTorch is not installed.",
            "It installs torch in the build that fits the graphics card.",
            "Install PyTorch with the Extensions Manager and restart Slicer; or install from a folder of wheel files.",
        ) from error
    _attempt(
        lambda: PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=False, torchVersionRequirement=str(requirement.specifier)
        ),
        _("torch could not be installed"),
        _("Either the internet cannot be reached, or the disk is full or may not be written."),
        _("Check both and try again, or use the module PyTorch Utils; without internet, choose a folder of wheels."),
    )


def _attempt(action: Callable[[], object], what: str, meaning: str, remedy: str) -> None:
    try:
        with slicer.util.WaitCursor():
            action()
    except _FAILURES as error:
        raise InstallError(f"{what} ({error}).", meaning, remedy) from error


def _cannot_remove(names: Sequence[str]) -> tuple[str, str, str]:
    return (
        _("What is left of {names} could not be removed").format(names=", ".join(names)),
        _("It was installed only in part, or is in use."),
        _("Close Slicer, delete the folders that begin with {names} in {folder}, and start Slicer again.").format(
            names=", ".join(names), folder=site_packages()
        ),
    )


def _unloadable(why: str) -> tuple[str, str]:
    """(meaning, remedy) by what the system said."""
    if "DLL" in why or "WinError" in why:
        return (
            _("A library of Windows that it builds on is missing or too old."),
            _("Install Microsoft's Visual C++ Redistributable (x64) and restart the computer."),
        )
    return _("No job can run without it."), _("Press again to repair it; if that fails, copy the self-check.")
