"""The Python packages that the work needs: which there are, whether they can be imported, what the computer has.

Nothing is imported into Slicer's own process: torch takes seconds, and on Windows its files could not be replaced any
more. What can be imported is found out by a process like the worker's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
import slicer.packaging
from apformer.errors import APFormerError
from apformer.jobs import processes

PRESENT, ABSENT, UNSUITABLE, BROKEN = "present", "not installed", "unsuitable version", "damaged"
# Of the files in a torch wheel, from site-packages on (torch 2.13, a licence under torch-*.dist-info).
LONGEST_FILE = 171
WINDOWS_MAX_PATH = 259  # MAX_PATH of 260 with its terminating null
_PROBE_SECONDS = 300
_IMPORT_NAMES = {"pillow": "PIL"}
_PROBE = """
import importlib, json, sys
problems, devices = {}, ["CPU"]
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        problems[name] = f"{type(error).__name__}: {error}"
torch = None if "torch" in problems else sys.modules.get("torch")
if torch is not None:
    if torch.cuda.is_available():
        devices += [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    elif torch.backends.mps.is_available():
        devices.append("Apple GPU")
print("\\n" + json.dumps({"problems": problems, "devices": devices}))
"""


class InstallError(APFormerError):
    """The packages that the work needs could not be installed, or do not work."""


@dataclass(frozen=True)
class Package:
    """A requirement, and what there is of it. `version`: None when nothing is installed."""

    requirement: Any
    state: str
    version: str | None

    @property
    def name(self) -> str:
        return str(self.requirement.name)

    @property
    def module(self) -> str:
        """The name that it is imported by."""
        return _IMPORT_NAMES.get(self.name.lower(), self.name)

    @property
    def line(self) -> str:
        """ "torch>=2.6,<3: 2.13.0, present" """
        return f"{self.requirement}: {', '.join(filter(None, (self.version, self.state)))}"


@dataclass(frozen=True)
class Probe:
    """What a process like the worker's could import. `problems`: module -> why not; `devices`: what can compute."""

    problems: dict[str, str]
    devices: tuple[str, ...]


def look(requirements: Sequence[Any]) -> list[Package]:
    """What there is of each requirement, from the files on the disk; takes milliseconds."""
    importlib.invalidate_caches()
    return [_look_at(requirement) for requirement in requirements]


def python_program() -> str:
    """The Python that jobs run with: Slicer's launcher for it, which is on the path in Slicer."""
    return shutil.which("PythonSlicer") or sys.executable


def probe(python: str, modules: Sequence[str]) -> Probe:
    """Import modules in a process of its own; takes seconds."""
    quiet: dict[str, Any] = {}
    if sys.platform == "win32":
        quiet = {"creationflags": subprocess.CREATE_NO_WINDOW}
    try:
        ended = subprocess.run(
            [python, "-c", _PROBE, *modules],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_PROBE_SECONDS,
            env=processes.child_environment(),
            check=False,
            **quiet,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Probe(dict.fromkeys(modules, str(error)), ())
    with suppress(ValueError, IndexError, KeyError, TypeError):
        told = json.loads(ended.stdout.strip().splitlines()[-1])
        return Probe(dict(told["problems"]), tuple(told["devices"]))
    said = (ended.stderr.strip().splitlines() or [f"the process ended with status {ended.returncode}"])[-1]
    return Probe(dict.fromkeys(modules, said), ())


def check_path_length(folder: Path | None = None, limited: bool | None = None) -> None:
    """Raises InstallError where the files of torch would have longer paths than the system allows.

    Args:
        folder: that they are installed to, by default this Python's.
        limited: whether there is a limit; by default, on a Windows without long paths.
    """
    folder = folder or site_packages()
    length = len(str(folder)) + 1 + LONGEST_FILE
    if limited is None:
        limited = not long_paths_allowed()
    if not limited or length <= WINDOWS_MAX_PATH:
        return
    raise InstallError(
        f"The files of torch would have paths of {length} characters below {folder}.",
        f"Windows allows {WINDOWS_MAX_PATH}; the installation would stop half way.",
        "Allow long paths in Windows (LongPathsEnabled), or install Slicer in a folder with a short name, such as "
        "C:\\Slicer.",
    )


def long_paths_allowed() -> bool:
    """Whether this is no Windows, or one with the setting LongPathsEnabled."""
    if sys.platform != "win32":
        return True
    import winreg

    with (
        suppress(OSError),
        winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as key,
    ):
        return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])
    return False


def site_packages() -> Path:
    """Where pip installs to."""
    return Path(sysconfig.get_paths()["purelib"])


def leftovers(folder: Path | None = None) -> list[str]:
    """What an interrupted pip left behind: it renames what it removes to names that begin with ~."""
    folder = folder or site_packages()
    return sorted(path.name for path in folder.glob("~*")) if folder.is_dir() else []


def self_check(packages: Sequence[Package], proved: Probe, python: str) -> str:
    """All of it as text for a message to a colleague; nothing in it is about a patient."""
    app = slicer.app
    lines = [
        f"3D Slicer {app.applicationVersion} (revision {app.revision}) on {platform.platform()}, {platform.machine()}",
        f"Python {platform.python_version()}: {python}",
        f"Packages in {site_packages()}:",
        *(f"  {package.line}{_problem(package, proved)}" for package in packages),
        f"Can compute: {', '.join(proved.devices) or 'not known'}",
    ]
    with suppress(OSError):
        lines.append(f"Free on that disk: {shutil.disk_usage(site_packages()).free / 1e9:.1f} GB")
    if os.name == "nt":
        lines.append(f"Long paths allowed: {'yes' if long_paths_allowed() else 'no'}")
    if leftovers():
        lines.append(f"Left by an interrupted installation: {', '.join(leftovers())}")
    return "\n".join(lines)


def _look_at(requirement: Any) -> Package:
    from importlib import metadata  # which loads a reader of e-mails

    version = None
    with suppress(metadata.PackageNotFoundError):
        version = metadata.version(requirement.name) or None
    if not slicer.packaging.pip_check([requirement]):
        return Package(requirement, ABSENT if version is None else UNSUITABLE, version)
    package = Package(requirement, PRESENT, version)
    return package if _is_on_disk(package.module) else Package(requirement, BROKEN, version)


def _is_on_disk(module: str) -> bool:
    """Whether there is a module to import. A folder without __init__.py is what a half-removed package leaves."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return found is not None and found.origin is not None


def _problem(package: Package, proved: Probe) -> str:
    problem = proved.problems.get(package.module)
    return f"; cannot be imported: {problem}" if problem else ""
