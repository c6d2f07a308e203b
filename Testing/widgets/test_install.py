"""The first use: what is missing or damaged is recognised, explained once, installed from where the user says."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from stand_in import Host

RESOURCES = Path(__file__).resolve().parents[2] / "APFormerSlicer" / "Resources"


class Place:
    """A folder on the import path, to which packages are put as pip does, wholly or in part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, version: str = "1.0", code: str | None = "") -> None:
        """`code`: of its __init__.py; None: only the metadata, as after an installation that broke off."""
        about = self.folder / f"{name}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
        if code is not None:
            (self.folder / name).mkdir()
            (self.folder / name / "__init__.py").write_text(code, encoding="utf-8")

    def remove(self, name: str) -> None:
        for path in self.folder.glob(f"{name}*"):
            shutil.rmtree(path)


@pytest.fixture
def a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return Place(tmp_path / "site")


@pytest.fixture
def make_install(a_slicer: Host, a_place: Place, tmp_path: Path) -> Callable[..., Any]:
    """An `Install` of the given requirements, whose question has an answer, and `questions` that were asked."""

    def make(*requirements: str, training: tuple[str, ...] = (), answer: Any = "online") -> Any:
        from APFormerSlicerLib.widgets.install import Install, Source

        for name, lines in (("requirements.txt", requirements), ("requirements-training.txt", training)):
            (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
        questions: list[tuple[str, str, str]] = []
        given = Source() if answer == "online" else answer
        install = Install(tmp_path, lambda *question: questions.append(question) or given)
        return SimpleNamespace(
            missing=install.missing,
            ensure=install.ensure,
            report=install.report,
            prove=install.prove,
            questions=questions,
        )

    return make


def installing(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """What pip really does after it was asked."""
    import slicer

    note = slicer.packaging.pip_ensure

    def pip_ensure(*requirements: Any, **settings: Any) -> None:
        note(*requirements, **settings)
        action()

    monkeypatch.setattr(slicer.packaging, "pip_ensure", pip_ensure)


def test_the_lists_bound_torch_and_leave_alone_what_slicer_brings(a_slicer: Host) -> None:
    import slicer

    for file in ("requirements.txt", "requirements-training.txt"):
        listed = {entry.name: entry.specifier for entry in slicer.packaging.load_requirements(RESOURCES / file)}
        assert not listed["torch"].contains("3.0") and listed["torch"].contains("2.13.0")
        assert not {"SimpleITK", "numpy", "pydicom"} & set(listed)
        assert ("monai" in listed) == ("training" in file)


def test_what_is_there_and_works_is_not_asked_about_and_proved_once(
    make_install: Callable[..., Any], a_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from APFormerSlicerLib.widgets import install as room

    a_place.put("roentgen_a")
    install = make_install("roentgen_a>=1,<2")
    probed: list[list[str]] = []
    monkeypatch.setattr(
        room, "probe", lambda python, names, _probe=room.probe: probed.append(names) or _probe(python, names)
    )
    assert not install.missing() and install.ensure() and install.ensure()
    assert probed == [["roentgen_a"]] and install.questions == []


def test_what_is_proved_aside_makes_nobody_wait(
    a_slicer: Host, make_install: Callable[..., Any], a_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from APFormerSlicerLib.widgets import install as room

    a_place.put("roentgen_m")
    install = make_install("roentgen_m", training=("roentgen_m", "roentgen_n"))
    probed: list[tuple[str, list[str]]] = []
    gate = threading.Event()

    def probe(python: str, names: list[str], _probe: Any = room.probe) -> Any:
        probed.append((threading.current_thread().name, names))
        gate.wait(60)
        return _probe(python, names)

    monkeypatch.setattr(room, "probe", probe)
    install.prove()
    install.prove()
    assert install.ensure()  # at once, though it is not known yet
    gate.set()
    import qt

    a_slicer.wait(lambda: bool(qt.QSettings().value("APFormer/Proved")), 60)
    assert install.ensure() and install.questions == []
    install.prove()
    a_slicer.settle(0.05)
    assert probed == [("aside", ["roentgen_m"])]


def test_what_was_found_aside_to_be_damaged_is_asked_about_at_the_next_job(
    a_slicer: Host, make_install: Callable[..., Any], a_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from APFormerSlicerLib.widgets import install as room

    a_place.put("roentgen_o", code="raise ImportError('half of it is missing')")
    install = make_install("roentgen_o", answer=None)
    done: list[Any] = []
    monkeypatch.setattr(room, "probe", lambda *words, _probe=room.probe: done.append(_probe(*words)) or done[-1])
    install.prove()
    a_slicer.wait(lambda: bool(done), 60)
    monkeypatch.setattr(room, "probe", lambda *_: pytest.fail("asked again while the user waits"))
    a_slicer.wait(lambda: install.ensure() is False, 60)  # until what was found is heard, it holds nobody up
    assert len(install.questions) == 1 and "damaged" in install.questions[0][0]


def test_what_is_missing_is_explained_once_and_installed(
    a_slicer: Host, make_install: Callable[..., Any], a_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_place.put("roentgen_old", "0.9")
    install = make_install("roentgen_b>=1,<2", "roentgen_old>=1")
    assert install.missing()

    def pip() -> None:
        a_place.remove("roentgen_old")
        a_place.put("roentgen_b")
        a_place.put("roentgen_old", "1.1")

    installing(monkeypatch, pip)
    assert install.ensure() and not install.missing()
    [(what, meaning, details)] = install.questions
    assert "Segmenting" in what and "Nothing about" in meaning
    assert "roentgen_b<2,>=1: not installed" in details and "0.9, unsuitable version" in details
    [(function, asked, settings)] = a_slicer.pip.calls
    assert function == "pip_ensure" and asked == ["roentgen_b<2,>=1", "roentgen_old>=1"]
    assert settings["prompt_install"] is False


def test_no_is_no(a_slicer: Host, make_install: Callable[..., Any]) -> None:
    install = make_install("roentgen_c", answer=None)
    assert install.ensure() is False and install.missing() and a_slicer.pip.calls == []


def test_training_extras_wait_for_the_first_fine_tuning_and_may_raise_a_bound(
    make_install: Callable[..., Any], a_place: Place
) -> None:
    a_place.put("roentgen_d", "2.6")
    install = make_install("roentgen_d>=2.6", training=("roentgen_d>=2.8", "roentgen_e"), answer=None)
    assert not install.missing() and install.missing(training=True)
    assert install.ensure() and install.questions == []
    assert install.ensure(training=True) is False
    [(what, _, details)] = install.questions
    assert "Fine-tuning" in what and details.splitlines() == [
        "roentgen_d>=2.8: 2.6, unsuitable version",
        "roentgen_e: not installed",
    ]


def test_a_half_installed_package_is_removed_and_installed_again(
    a_slicer: Host, make_install: Callable[..., Any], a_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_place.put("roentgen_f", code=None)
    (a_place.folder / "roentgen_f" / "lib").mkdir(parents=True)
    install = make_install("roentgen_f")
    assert install.missing()

    def pip() -> None:
        a_place.remove("roentgen_f")
        a_place.put("roentgen_f")

    installing(monkeypatch, pip)
    assert install.ensure() and "damaged" in install.questions[0][0]
    assert ("pip_uninstall", ["roentgen_f"], {}) in a_slicer.pip.calls


def test_what_is_there_but_cannot_be_imported_is_told_when_it_cannot_be_repaired(
    a_slicer: Host, make_install: Callable[..., Any], a_place: Place
) -> None:
    from APFormerSlicerLib.widgets.packages import InstallError

    a_place.put("roentgen_g", code="raise ImportError('DLL load failed while importing _C')")
    install = make_install("roentgen_g")
    assert not install.missing()  # as far as its files tell
    with pytest.raises(InstallError, match="DLL load failed") as told:
        install.ensure()
    assert "Visual C++" in told.value.remedy and ("pip_uninstall", ["roentgen_g"], {}) in a_slicer.pip.calls
    assert "cannot be imported: ImportError: DLL load failed" in install.report()


def test_a_crash_of_the_import_is_told(make_install: Callable[..., Any], a_place: Place) -> None:
    from APFormerSlicerLib.widgets.packages import probe

    a_place.put("roentgen_h", code="import os; os._exit(7)")
    assert "status 7" in probe(sys.executable, ["roentgen_h"]).problems["roentgen_h"]
    assert probe(str(a_place.folder / "no python"), ["roentgen_h"]).problems


def test_a_folder_of_wheels_serves_computers_without_internet(
    a_slicer: Host, make_install: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from APFormerSlicerLib.widgets.install import Source
    from APFormerSlicerLib.widgets.packages import InstallError

    wheels = tmp_path / "Räder und Äxte"
    install = make_install("torch>=99", "roentgen_i", answer=Source(wheels))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(InstallError, match="After the installation these are still not right: torch"):
        install.ensure()  # nothing is installed in a test
    [(function, words, _)] = a_slicer.pip.calls
    assert function == "pip_install"
    assert words == ["--no-index", "--find-links", str(wheels), "torch>=99", "roentgen_i"]


def test_pip_that_fails_is_told_with_what_to_do(a_slicer: Host, make_install: Callable[..., Any]) -> None:
    from APFormerSlicerLib.widgets.install import Source
    from APFormerSlicerLib.widgets.packages import InstallError

    a_slicer.pip.fails = True
    for answer, remedy in (("online", "wheel files"), (Source(Path("wheels")), "pip download")):
        with pytest.raises(InstallError, match="could not be installed") as told:
            make_install("roentgen_j", answer=answer).ensure()
        assert remedy in told.value.remedy


def test_torch_comes_through_the_extension_pytorch_with_its_bounds(
    make_install: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from APFormerSlicerLib.widgets.packages import InstallError

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    install = make_install("torch>=98,<99")
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    with pytest.raises(InstallError, match="extension PyTorch is not installed"):
        install.ensure()
    asked: list[dict[str, Any]] = []
    utilities = ModuleType("PyTorchUtils")
    vars(utilities)["PyTorchUtilsLogic"] = lambda: SimpleNamespace(installTorch=lambda **words: asked.append(words))
    monkeypatch.setitem(sys.modules, "PyTorchUtils", utilities)
    with pytest.raises(InstallError, match="still not right"):
        install.ensure()
    assert asked == [{"askConfirmation": False, "torchVersionRequirement": "<99,>=98"}]


def test_a_torch_in_use_is_not_replaced(make_install: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from APFormerSlicerLib.widgets.packages import InstallError

    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    install = make_install("torch>=98")
    with pytest.raises(InstallError, match="another module of Slicer is using it") as told:
        install.ensure()
    assert "Restart" in told.value.remedy and install.questions == []


def test_paths_that_are_too_long_for_windows_are_told_before_anything_is_downloaded(a_slicer: Host) -> None:
    from APFormerSlicerLib.widgets.packages import InstallError, check_path_length

    usual = Path(r"C:\Users\radiology\AppData\Local\slicer.org\Slicer 5.12\lib\Python\Lib\site-packages")
    check_path_length(usual, limited=True)
    deep = usual / "one folder more"
    check_path_length(deep, limited=False)
    with pytest.raises(InstallError, match="paths of"):
        check_path_length(deep, limited=True)


def test_the_self_check_tells_versions_and_what_an_interrupted_pip_left(
    make_install: Callable[..., Any], a_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from APFormerSlicerLib.widgets import packages

    a_place.put("roentgen_k", "1.4")
    (a_place.folder / "~orch").mkdir()
    monkeypatch.setattr(packages, "site_packages", lambda: a_place.folder)
    text = make_install("roentgen_k", training=("roentgen_l",)).report()
    assert "5.12" in text and "roentgen_k: 1.4, present\n" in text and "Can compute: CPU" in text
    assert "roentgen_l: not installed; cannot be imported" in text and "~orch" in text


def test_the_question_can_be_answered_in_its_window(a_slicer: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    import qt
    from APFormerSlicerLib.widgets.install import Source, ask_user

    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: "/wheels")

    def answered(text: str) -> Source | None:
        def click() -> None:
            box = qt.QApplication.activeModalWidget()
            next(button for button in box.buttons() if button.text.replace("&", "") == text).click()

        timer = qt.QTimer()
        timer.singleShot = True
        timer.connect("timeout()", click)
        timer.start(50)
        return ask_user("Segmenting needs packages.", "They are installed once.", "torch")

    assert answered("Install") == Source()
    assert answered("Cancel") is None
    assert answered("From a folder...") == Source(Path("/wheels"))


def test_with_slicer_in_testing_mode_nobody_is_asked(tmp_path: Path) -> None:
    import stand_in

    with stand_in.start(tmp_path, testing=True):
        from APFormerSlicerLib.widgets.install import Source, ask_user

        assert ask_user("what", "meaning", "details") == Source()
