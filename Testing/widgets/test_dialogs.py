"""The windows of the panel: an error with its three parts and its log, a question whose safe answer is the default."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apformer.errors import InputError
from apformer.jobs import JobError


@pytest.fixture
def dialogs(a_slicer: Any) -> Any:
    from APFormerSlicerLib.widgets.dialogs import Dialogs

    return Dialogs(a_slicer.window)


def while_open(action: Callable[[Any], None]) -> Any:
    """Do something with the window that waits for the user, as soon as there is one."""
    import qt

    timer = qt.QTimer()
    timer.setInterval(20)

    def look() -> None:
        window = qt.QApplication.activeModalWidget()
        if window is not None:
            timer.stop()
            action(window)

    timer.connect("timeout()", look)
    timer.start()
    return timer


def press(window: Any, text: str) -> None:
    import qt

    next(button for button in window.findChildren(qt.QPushButton) if button.text.replace("&", "") == text).click()


def test_an_error_says_what_it_means_and_what_to_do(dialogs: Any) -> None:
    read: list[str] = []

    def answer(window: Any) -> None:
        read.extend([window.text, window.informativeText])
        press(window, "OK")

    timer = while_open(answer)
    assert not dialogs.attempt(lambda: _fail(InputError("It is a photo.", "Nothing was done.", "Choose a CT.")))
    assert read == ["It is a photo.", "Nothing was done.\n\nChoose a CT."] and not timer.active


def test_the_log_can_be_shown(dialogs: Any, tmp_path: Path) -> None:
    import qt

    (tmp_path / "log 脳.txt").write_text("first\nlast line", encoding="utf-8")
    shown: list[str] = []

    def read(window: Any) -> None:
        shown.append(window.findChildren(qt.QPlainTextEdit)[0].plainText)
        window.close()

    timers: list[Any] = []

    def answer(window: Any) -> None:
        timers.append(while_open(read))
        press(window, "Show log")

    timers.append(while_open(answer))
    dialogs.error(JobError("The worker ended.", "No result.", "Try again.", str(tmp_path / "log 脳.txt")))
    assert shown == ["first\nlast line"]


@pytest.mark.parametrize(("pressed", "agreed"), [("Replace", True), ("Cancel", False)])
def test_a_question_is_answered_yes_only_by_its_own_button(dialogs: Any, pressed: str, agreed: bool) -> None:
    timer = while_open(lambda window: press(window, pressed))
    assert dialogs.confirm("It is there.", "It would be replaced.", "Replace") is agreed and not timer.active


def test_a_fault_of_ours_is_shown_and_not_swallowed(dialogs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    timer = while_open(lambda window: press(window, "OK"))
    assert not dialogs.attempt(lambda: _fail(ZeroDivisionError("by nought")))
    assert "by nought" in capsys.readouterr().err and not timer.active


def test_what_goes_well_shows_nothing(dialogs: Any) -> None:
    done: list[int] = []
    assert dialogs.attempt(lambda: done.append(1)) and done == [1]


def _fail(error: Exception) -> None:
    raise error


def test_with_slicer_in_testing_mode_errors_and_questions_go_to_the_log_and_nothing_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import stand_in

    with stand_in.start(tmp_path, testing=True) as host:
        from APFormerSlicerLib.widgets.dialogs import Dialogs

        Dialogs(host.window).error(InputError("It is empty.", "Nothing to do.", "Choose another."))
        assert not Dialogs(host.window).confirm("It is there.", "It would be replaced.", "Replace")
    assert "It is empty. Nothing to do. Choose another." in caplog.text
    assert "It is there. It would be replaced. Not agreed to." in caplog.text
