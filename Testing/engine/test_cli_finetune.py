"""`apformer finetune`: what is refused before anything starts, what is shown, and how it ends, early or not."""

from __future__ import annotations

import argparse
import io
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.bundles import Bundle, ModelLibrary
from apformer.commands import finetune_view
from apformer.commands.durations import in_words, seconds_of
from apformer.commands.finetune_report import as_text, warnings_after
from apformer.finetuning import Outcome, Request
from apformer.finetuning.folder import PLAN, TRAININGS
from cli_samples import CommandLine
from finetune_samples import a_base, a_site

EPOCH: dict[str, Any] = {
    "event": "epoch", "epoch": 3, "step": 310, "phase": "tighten", "fold": 2, "folds": 4, "dice": {"Ball": 0.9},
    "losses": {"total": 0.5, "ssa": 0.1, "segmentation": 0.4}, "learning_rate": 6e-4, "kept": 0.31, "eta_s": 61.0,
    "overlays": [],
}  # fmt: skip
EVENTS: list[dict[str, Any]] = [
    {"event": "progress", "fraction": 0.0, "message": "measuring: case 1 of 2", "eta_s": None},
    {"event": "progress", "fraction": 0.1, "message": "measuring: case 2 of 2", "eta_s": 100.0},
    {"event": "measured", "which": "before", "labels": {"Ball": {"mean_dice": 0.25}, "Hole": {}}},
    EPOCH,
    {"event": "progress", "fraction": 0.2, "message": "training, tighten: step 310", "eta_s": 60.0},
    {"event": "log", "message": "No case was lost [so far]."},
]


def figures(model: str, **dice: float | None) -> dict[str, Any]:
    labels = {name: {"mean_dice": value, "hd95_mm": None if value is None else 2.5} for name, value in dice.items()}
    return {"model": model, "labels": labels, "ms_per_case": 120.0, "gmac": 1.5, "kept_tokens_mean": None}


def a_summary(**changes: Any) -> dict[str, Any]:
    return {
        "base": {"name": "ball", "version": "1.0.0"},
        "time": {"used_s": 61.2},
        "device": "cpu",
        "data": {
            "training_patients": 6, "validation_patients": 2, "folds": 1, "training_cases": list("abcdefg"),
            "validation_cases": ["h", "i"], "measured_cases": ["h", "i"],
            "skipped": [{"case": "case-0007", "reason": "It is gone."}],
        },
        "before": figures("ball 1.0.0", Ball=0.25, Hole=None),
        "rival": None,
        "after": figures("ball 1.1.0", Ball=0.5, Hole=0.75),
        "warnings": ["Too dark.", "Too few."],
        **changes,
    }  # fmt: skip


class Faked:
    """Stands where `finetune` is: remembers what was asked, tells `EVENTS`, and returns an outcome."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.asked = bundle, list[Request]()
        self.summary, self.adopted = a_summary(), True

    def __call__(self, request: Request, *, on_event: Any = None, check: Any = None) -> Outcome:
        self.asked.append(request)
        for event in EVENTS if on_event is not None else ():
            on_event(event)
        check()
        folder = Path("trainings") / "ball-1.1.0"
        return Outcome(
            self.bundle, self.adopted, "It is better.", folder / "report.json", folder / "report.html", self.summary
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model `ball`, a data set of eight patients, and one of two."""
    home = tmp_path_factory.mktemp("home")
    a_base(ModelLibrary([home / "models"]))
    a_site(home / "site")
    a_site(home / "two", patients=2)
    return home


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("APFORMER_MODELS", str(home / "models"))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return CommandLine(capsys)


@pytest.fixture
def faked(home: Path, monkeypatch: pytest.MonkeyPatch) -> Faked:
    faked = Faked(ModelLibrary([home / "models"]).find("ball"))
    monkeypatch.setattr("apformer.finetuning.finetune", faked)
    return faked


# ------------------------------------------------------------------ what is asked


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15min", 900), ("15 MIN", 900), ("1h", 3600), ("1.5h", 5400), ("1h30min", 5400), ("2d", 172800),
     ("900", 900), ("0.5", 0.5), (".5min", 30)],
)  # fmt: skip
def test_a_time_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "15m", "min", "-5min", "1h-5min", "15min x", "1,5h", "nan", "inf", "1e3"])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write 15min"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("seconds", "words"), [(3.21, "3.2 s"), (45.4, "45 s"), (900, "15 min"), (5400, "90 min"), (9000, "2.5 h")]
)
def test_seconds_are_told_as_exactly_as_they_deserve(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_every_option_reaches_the_request(run: CommandLine, home: Path, faked: Faked) -> None:
    ran = run(
        "finetune", "--data", home / "site", "--base", "ball", "-o", "site-ball", "--labels", "Ball, Hole", "--labels",
        "Ball", "--map", "Hole = Ball", "--replace-labels", "--budget", "keep=0.3", "--time", "2min", "--device", "cpu",
        "--threads", 3, "--seed", 7, "--no-rehearsal", "--adopt", "never", "--resume",
    )  # fmt: skip
    assert ran.status == 1 and "would both be Ball" in ran.err  # the labels are planned before anything starts
    words = ["--data", home / "site", "--base", "ball", "-o", "site-ball"]
    more = ["--labels", "Hole", "--map", "Hole = Ball", "--replace-labels", "--budget", "keep=0.3", "--time", "2min"]
    rest = ["--device", "cpu", "--threads", 3, "--seed", 7, "--no-rehearsal", "--adopt", "never", "--resume"]
    assert run("finetune", *words, *more, *rest).status == 0
    assert faked.asked == [
        Request(
            dataset=home / "site", name="site-ball", base="ball", labels=("Hole",), mapping={"Hole": "Ball"},
            replace=True, budget="keep=0.3", seconds=120.0, device="cpu", threads=3, seed=7, rehearsal=False,
            adopt="never", resume=True,
        )
    ]  # fmt: skip


@pytest.mark.parametrize("base", [[], ["--base", "none"]])
def test_without_a_base_it_is_trained_from_scratch(run: CommandLine, home: Path, faked: Faked, base: list[str]) -> None:
    ran = run("finetune", "--data", home / "site", *base, "-o", "balls", "--steps", 15)
    assert faked.asked == [Request(dataset=home / "site", name="balls", base=None, steps=15)]
    assert "from scratch" in ran.err and "15 steps" in ran.err and "Hole: new" in ran.err


def test_the_network_of_a_model_from_scratch_can_be_named(run: CommandLine, home: Path, faked: Faked) -> None:
    words = ["finetune", "--data", home / "site", "-o", "balls", "--steps", 15, "--network", "apformer"]
    assert run(*words).status == 0
    assert faked.asked == [Request(dataset=home / "site", name="balls", base=None, steps=15, network="apformer")]
    refused = run(*words, "--base", "ball")
    assert refused.status == 2 and "brings its own network" in refused.err


@pytest.mark.parametrize(
    "words",
    [
        ["-o", "x"],
        ["--data", "SITE"],
        ["--data", "SITE", "-o", "x", "--time", "soon"],
        ["--data", "SITE", "-o", "x", "--time", "5s"],
        ["--data", "SITE", "-o", "x", "--time", "90s", "--steps", "5"],
        ["--data", "SITE", "-o", "x", "--steps", "1"],
        ["--data", "SITE", "-o", "x", "--steps", "many"],
        ["--data", "SITE", "-o", "../x"],
        ["--data", "SITE", "-o", "x", "--base", "ball", "--map", "Hole"],
        ["--data", "SITE", "-o", "x", "--map", "Hole=Ball"],
        ["--data", "SITE", "-o", "x", "--budget", "keep=7"],
        ["--data", "SITE", "-o", "x", "--adopt", "maybe"],
        ["--data", "SITE", "-o", "x", "--seed", "-1"],
        ["--data", "SITE", "-o", "x", "--seed", "9999999999"],
        ["--data", "SITE", "-o", "x", "--threads", "0"],
        ["--data", "SITE", "-o", "x", "--device", "gpu"],
    ],
    ids=" ".join,
)
def test_a_wrong_call_exits_with_2_before_anything_starts(
    run: CommandLine, home: Path, faked: Faked, words: list[str]
) -> None:
    ran = run("finetune", *(word.replace("SITE", str(home / "site")) for word in words), "--json")
    assert ran.status == 2 and set(ran.json["error"]) == {"what", "meaning", "remedy"}
    assert ran.err.startswith("error: ") and "Traceback" not in ran.err
    assert faked.asked == []


# ------------------------------------------------------------------ before it starts


def test_a_data_set_that_cannot_be_trained_on_stops_it_with_its_problems(
    run: CommandLine, home: Path, faked: Faked
) -> None:
    ran = run("finetune", "--data", home / "two", "--base", "ball", "-o", "x", "--json")
    assert ran.status == 1 and faked.asked == []
    assert "2 patients" in ran.json["error"]["what"] and "Complete cases" in ran.json["error"]["remedy"]
    assert "blocks training: The completed cases are of 2 patients." in ran.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data", "nowhere"], "nowhere is not a folder"),
        (["--data", "SITE", "--base", "none-such"], "none-such"),
        (["--data", "SITE", "--labels", "Liver"], "no label 'Liver'"),
        (["--data", "SITE", "--base", "ball", "--map", "Hole=Liver"], "no label 'Liver'"),
    ],
)
def test_what_is_not_there_is_told_before_anything_starts(
    run: CommandLine, home: Path, faked: Faked, words: list[str], says: str
) -> None:
    ran = run("finetune", *(word.replace("SITE", str(home / "site")) for word in words), "-o", "x", "--json")
    assert ran.status == 1 and says in ran.json["error"]["what"] and faked.asked == []


def test_problems_and_what_becomes_of_each_label_are_told_in_plain_words(
    run: CommandLine, home: Path, faked: Faked
) -> None:
    ran = run("finetune", "--data", home / "site", "--base", "ball", "-o", "x")
    assert "worth a look: Hole is unusually large or small" in ran.err
    assert "Ball: known to the base, trained further" in ran.err and "Hole: new" in ran.err
    assert "starts untrained" not in ran.err  # the general remark on new labels, which the line above replaces
    ran = run("finetune", "--data", home / "site", "--base", "ball", "-o", "x", "--labels", "Hole")
    assert "Ball: known to the base, not labelled here, kept" in ran.err
    mapped = run(
        "finetune", "--data", home / "site", "--base", "ball", "-o", "x", "--labels", "Hole", "--map", "Hole=Ball"
    )
    assert "Ball: known to the base, same as the site's Hole, trained further" in mapped.err


# ------------------------------------------------------------------ while it runs


def test_with_json_stdout_is_one_object_and_stderr_tells_how_far_it_is(
    run: CommandLine, home: Path, faked: Faked
) -> None:
    ran = run("finetune", "--data", home / "site", "--base", "ball", "-o", "ball", "--json")
    assert ran.json["model"] == {"name": "ball", "version": "1.0.0", "checksum": faked.bundle.checksum}
    assert ran.json["adopted"] is True and ran.json["verdict"] == "It is better."
    assert ran.json["page"].endswith("report.html") and ran.json["report"].endswith("report.json")
    assert ran.json["after"]["labels"]["Hole"]["mean_dice"] == 0.75
    lines = ran.err.splitlines()
    assert lines.count("measuring") == 1
    assert "before: Dice Ball 0.250, Hole -" in lines
    assert (
        "training 2 of 4 · step 310 · tighten · Dice Ball 0.900 · 31% of tokens kept · 61 s left · "
        "learning rate 0.0006 · loss 0.5 (segmentation 0.4, ssa 0.1)"
    ) in lines
    assert "No case was lost [so far]." in lines and not any(line.startswith("training,") for line in lines)


def test_a_line_without_validation_pruning_folds_or_time_says_less() -> None:
    bare = {**EPOCH, "fold": 1, "folds": 1, "dice": None, "kept": None, "eta_s": None, "losses": {}}
    assert finetune_view.as_line(bare) == "step 310 · tighten · learning rate 0.0006"


def test_quiet_leaves_the_result_out_too_and_warnings_in(run: CommandLine, home: Path, faked: Faked) -> None:
    ran = run("finetune", "--data", home / "site", "-o", "x", "--quiet")
    assert ran.out == ""
    assert ran.err.splitlines() == [
        "warning: Too dark.", "warning: Too few.", "warning: case-0007 was left out: It is gone."
    ]  # fmt: skip


def test_a_terminal_sees_a_bar_and_the_lines_above_it(
    run: CommandLine, home: Path, faked: Faked, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    ran = run("finetune", "--data", home / "site", "-o", "x", "--json")
    assert ran.status == 0 and json.loads(ran.out)["adopted"]
    text = shown.getvalue()
    assert "step 310 · tighten" in text and "No case was lost [so far]." in text
    assert "training, tighten: step 310" in text and "60 s left" in text


def test_only_the_first_of_several_processes_speaks(
    run: CommandLine, home: Path, faked: Faked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")  # alone, it says nothing of processes
    assert run("finetune", "--data", home / "site", "-o", "x", "--json").json["adopted"]
    faked.asked.clear()
    monkeypatch.setenv("WORLD_SIZE", "2")
    ran = run("finetune", "--data", home / "site", "-o", "x", "--json")
    assert (ran.status, ran.out, ran.err) == (0, "", "") and len(faked.asked) == 1
    failed = run("finetune", "--data", home / "site", "-o", "../x", "--json")
    assert failed.status == 2 and failed.out == "" and failed.err.startswith("error: ")
    monkeypatch.setenv("RANK", "0")
    assert run("finetune", "--data", home / "site", "-o", "x", "--json").json["adopted"]


# ------------------------------------------------------------------ Ctrl-C


def test_ctrl_c_stops_between_two_steps_and_tells_how_to_go_on(
    run: CommandLine, home: Path, faked: Faked, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    plan = home / "site" / TRAININGS / "stopped" / PLAN

    def interrupted(request: Request, *, on_event: Any, check: Any) -> Outcome:
        plan.parent.mkdir(parents=True)
        plan.touch()
        signal.raise_signal(signal.SIGINT)
        steps.append("the step was finished")
        check()
        raise AssertionError("it went on")

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("apformer.finetuning.finetune", interrupted)
    ran = run("finetune", "--data", home / "site", "-o", "stopped", "--json")
    assert ran.status == 130 and steps == ["the step was finished"]
    assert "--resume" in ran.json["error"]["remedy"] and str(plan.parent) in ran.json["error"]["meaning"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_stops_at_once_and_before_anything_began_there_is_nothing_to_resume(
    run: CommandLine, home: Path, faked: Faked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(request: Request, *, on_event: Any, check: Any) -> Outcome:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it went on")

    monkeypatch.setattr("apformer.finetuning.finetune", stuck)
    ran = run("finetune", "--data", home / "site", "-o", "x", "--json")
    assert ran.status == 130 and "before it began" in ran.json["error"]["what"]


def test_an_error_that_follows_from_ctrl_c_is_not_told_as_one(
    run: CommandLine, home: Path, faked: Faked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(request: Request, *, on_event: Any, check: Any) -> Outcome:
        signal.raise_signal(signal.SIGINT)
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr("apformer.finetuning.finetune", broken)
    ran = run("finetune", "--data", home / "site", "-o", "x", "--json")
    assert ran.status == 130 and "interrupted" in ran.json["error"]["what"]


def test_a_real_training_that_was_stopped_is_resumed_to_a_version_of_the_model(
    run: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--data", home / "site", "--base", "ball", "-o", "real", "--steps", 9, "--device", "cpu", "--threads", 1]
    said = finetune_view.as_line

    def stop_after_the_first_stretch(event: Any) -> str:
        if event["event"] == "epoch" and event["epoch"] == 1:
            signal.raise_signal(signal.SIGINT)
        return said(event)

    monkeypatch.setattr(finetune_view, "as_line", stop_after_the_first_stretch)
    stopped = run("finetune", *words)
    assert stopped.status == 130 and "step 3 ·" in stopped.err and "step 6 ·" not in stopped.err
    assert "is not finished" in run("finetune", *words).err
    ran = run("finetune", *words, "--resume", "--adopt", "always", "--json")
    assert ran.status == 0, ran.err
    assert "\nstep 6 ·" in ran.err and "\nstep 3 ·" not in ran.err
    assert ran.json["model"]["name"] == "real" and ran.json["adopted"]
    assert set(ran.json["after"]["labels"]) == {"Ball", "Hole"}
    assert Path(ran.json["page"]).is_file() and Path(ran.json["report"]).is_file()
    assert ModelLibrary([home / "models"]).find("real").checksum == ran.json["model"]["checksum"]


# ------------------------------------------------------------------ at the end


def test_the_end_shows_each_label_before_and_after_the_verdict_the_report_and_the_way_back(faked: Faked) -> None:
    outcome = Outcome(faked.bundle, True, "It is better.", Path("r.json"), Path("r.html"), a_summary())
    lines = as_text(outcome).splitlines()
    assert "trained on 7 cases of 6 patients, judged on 2 cases of 2 patients kept apart" in lines
    assert "mean Dice  ball 1.0.0  ball 1.1.0" in lines
    assert "Ball            0.250       0.500" in lines
    assert "Hole                -       0.750" in lines
    assert "Ball             2.50        2.50" in lines  # mm
    assert "GMAC               1.50        1.50" in lines
    assert not any(line.startswith("kept") for line in lines)
    assert lines[-3:] == [
        "It is better.",
        "ball 1.0.0 is active now; to go back: apformer models rollback ball",
        "report: r.html",
    ]


def test_folds_and_a_version_that_was_active_meanwhile_are_shown(faked: Faked) -> None:
    folds = {**a_summary()["data"], "folds": 3}
    summary = a_summary(data=folds, rival=figures("ball 1.0.5", Ball=0.4, Hole=0.3), base=None, before=None)
    text = as_text(Outcome(faked.bundle, True, "", Path("r.json"), Path("r.html"), summary))
    assert "3-fold cross-validation: judged on 2 cases of 2 patients" in text
    assert "Ball            0.400       0.500" in text and "rollback" in text


@pytest.mark.parametrize(
    ("adopted", "base", "says"),
    [
        (False, {"name": "ball", "version": "1.0.0"}, "apformer models activate ball 1.0.0"),
        (True, {"name": "other", "version": "1.0.0"}, "apformer models remove ball"),
        (True, None, "apformer models remove ball"),
    ],
    ids=["not adopted", "a new name", "from scratch"],
)
def test_the_way_back_fits_what_happened(faked: Faked, adopted: bool, base: Any, says: str) -> None:
    outcome = Outcome(faked.bundle, adopted, "", Path("r.json"), Path("r.html"), a_summary(base=base))
    assert says in as_text(outcome)


def test_what_was_told_before_is_not_told_again(faked: Faked) -> None:
    assert list(warnings_after(a_summary(), {"Too dark."})) == ["Too few.", "case-0007 was left out: It is gone."]
