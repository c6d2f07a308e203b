"""The fine-tuning report as a page: what it says, that it says all of it safely, and that it needs nothing else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apformer.errors import OutputError
from apformer.finetuning.page import write_page
from apformer.finetuning.page_style import DARK_CARD, LEAST_CONTRAST, LIGHT_CARD, contrast, readable
from apformer.finetuning.page_tables import worst_first
from PIL import Image
from report_samples import CASES, LABELS, Page, Report, a_report


@pytest.fixture
def page_of(tmp_path: Path) -> Callable[[Report], Page]:
    """Writes a report's page beside its pictures and reads it back; the HTML itself is in `tmp_path/report.html`."""
    (tmp_path / "overlays").mkdir()
    for file in ["worst-1.png", *(f"overlays/epoch-{epoch:03d}.png" for epoch in range(1, 25))]:
        Image.new("RGB", (4, 3), (200, 30, 40)).save(tmp_path / file)

    def write(report: Report) -> Page:
        written = write_page(json.loads(json.dumps(report)), tmp_path, tmp_path / "report.html")
        return Page(written.read_text(encoding="utf-8"))

    return write


def html_in(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_says_who_is_in_use_by_which_rule_and_how_to_go_back(page_of: Callable[[Report], Page]) -> None:
    page = page_of(a_report())
    order = [
        "liver-ct 1.2.0", "started from liver-ct 1.1.0", "Adopted: the new model is now in use",
        "Mean Dice went from 0.871 to 0.928", "Rule: The new version takes over", "Before and after", "Training",
        "Case by case", "Worst cases", "Data", "Warnings and skipped cases", "Exact settings",
        "puts liver-ct 1.1.0 in use again", "apformer models rollback liver-ct",
        "Research software, not a medical device.",
    ]  # fmt: skip
    places = [page.text.index(words) for words in order]
    assert places == sorted(places)


def test_a_model_that_was_not_adopted_is_not_said_to_be_in_use(page_of: Callable[[Report], Page]) -> None:
    page = page_of(a_report(adopted=False))
    assert "Kept the old model: the new one is not in use" in page.text
    assert "There is nothing to roll back" in page.text
    assert "now in use" not in page.text


def test_each_label_has_its_figures_before_and_after_and_the_change(page_of: Callable[[Report], Page]) -> None:
    report = a_report()
    report["before"]["labels"]["Liver"] = {"mean_dice": 0.9, "pooled_dice": 0.91, "hd95_mm": 7.5, "assd_mm": 1.25}
    report["after"]["labels"]["Liver"] = {"mean_dice": 0.9312, "pooled_dice": 0.91, "hd95_mm": 6.0, "assd_mm": 1.5}
    page = page_of(report)
    assert page.row("Liver") == [
        "Liverkept", "0.900", "0.931", "+0.031", "0.910", "0.910", "0.000", "7.50", "6.00", "\N{MINUS SIGN}1.50",
        "1.25", "1.50", "+0.25",
    ]  # fmt: skip


def test_a_change_is_marked_by_which_way_is_better(page_of: Callable[[Report], Page], tmp_path: Path) -> None:
    report = a_report()
    report["labels"], report["curves"] = report["labels"][:1], []
    for which, figures in (("before", (0.9, 0.9, 7.0, 1.0)), ("after", (0.8, 0.9, 6.0, 2.0))):
        keys = ("mean_dice", "pooled_dice", "hd95_mm", "assd_mm")
        report[which] |= {"labels": {"Liver": dict(zip(keys, figures, strict=True))}, "cases": {}}
    page_of(report)
    marks = re.findall(r'<td class="(better|worse|)">([^<]*)</td>', html_in(tmp_path))
    assert marks == [("worse", "−0.100"), ("", "0.000"), ("better", "−1.00"), ("worse", "+1.00")]  # noqa: RUF001


def test_cost_is_compared_in_numbers_and_percent(page_of: Callable[[Report], Page]) -> None:
    page = page_of(a_report())
    assert page.row("Time per case") == ["Time per case", "2,310 ms", "1,205 ms", "\N{MINUS SIGN}48%"]
    assert page.row("Operations per case")[1:3] == ["118 GMAC", "61.4 GMAC"]
    assert page.row("Parameters")[1:] == ["4,812,340", "4,812,598", "0%"]
    assert page.row("Tokens kept")[1:] == ["\N{EN DASH}1", "31%", ""]
    assert page.row("Structures inside")[1:] == ["\N{EN DASH}1", "99.9%", ""], "only all of it is 100 %"
    assert "This model does not prune: it keeps every token." in page.text


def test_what_is_missing_is_a_dash_with_its_reason(page_of: Callable[[Report], Page]) -> None:
    report = a_report()
    report["labels"].append({"name": "Gallbladder", "color": [0, 151, 206], "how": "kept", "trained": False})
    report["after"]["labels"]["Right kidney"]["hd95_mm"] = math.nan
    del report["before"]["cases"]["case-004"]
    page = page_of(report)
    dash = "\N{EN DASH}"
    assert page.row("Spleen")[1:4] == [f"{dash}1", report_figure(report, "Spleen"), ""]
    assert "1 The base model does not have this label." in page.text
    assert page.row("Right kidney")[8] == f"{dash}2"
    assert "2 Not defined: in every case the structure is missing" in page.text
    assert page.row("Gallbladder")[1:3] == [f"{dash}3", f"{dash}3"]
    assert "3 No case of the site labels this structure" in page.text
    assert "The base model was not measured on this case." in page.text
    assert "Not defined: the structure is missing from the reference or from the result." in page.text
    assert "nan" not in page.text.lower().split()


def report_figure(report: Report, label: str) -> str:
    return f"{report['after']['labels'][label]['mean_dice']:.3f}"


def test_a_label_that_no_validation_case_has_is_a_dash_and_its_false_positives_are_told(
    page_of: Callable[[Report], Page],
) -> None:
    report = a_report()
    for figures in (report["before"], report["after"]):
        figures["labels"]["Liver"] = dict.fromkeys(figures["labels"]["Liver"])
        for case in figures["cases"].values():
            case["Liver"] = dict.fromkeys(case["Liver"])
    report["after"]["false_positives"] = {"Liver": {"cases": 2, "amount": 3.5, "unit": "mL"}}
    page = page_of(report)
    dash = "\N{EN DASH}"
    assert page.row("Liver")[1:3] == [f"{dash}1", f"{dash}1"]
    assert "1 No validation case has this structure, so nothing judges it." in page.text
    assert "Found in cases whose reference has none of it: Liver 3.5 mL in 2 cases." in page.text


def test_a_label_that_the_new_model_lacks_keeps_its_row(page_of: Callable[[Report], Page]) -> None:
    report = a_report()
    report["before"]["labels"]["Pancreas"] = {"mean_dice": 0.7, "pooled_dice": 0.72, "hd95_mm": 9.0, "assd_mm": 2.0}
    page = page_of(report)
    assert page.row("Pancreas")[1:3] == ["0.700", "\N{EN DASH}2"]
    assert "2 The new model does not have this label." in page.text


def test_cases_are_listed_from_the_worst(page_of: Callable[[Report], Page]) -> None:
    report = a_report()
    expected = worst_first(report["after"]["cases"])
    assert expected[0] == "case-017"
    page = page_of(report)
    listed = [row[0] for row in page.rows if row and row[0] in CASES]
    assert listed == expected
    first = page.row("case-017")
    assert len(first) == 2 + 3 * 3 and first[1] == "Liver"


def test_a_case_without_any_dice_comes_last() -> None:
    assert worst_first({"none": {"A": {"dice": None}}, "good": {"A": {"dice": 0.9}}, "bad": {"A": {"dice": 0.1}}}) == [
        "bad", "good", "none",
    ]  # fmt: skip


@pytest.mark.parametrize(("count", "unfolded"), [(6, True), (40, False)])
def test_a_long_table_of_cases_is_folded(page_of: Callable[[Report], Page], count: int, unfolded: bool) -> None:
    report = a_report()
    entries = report["after"]["cases"]["case-004"]
    report["after"]["cases"] = {f"case-{number}": entries for number in range(count)}
    assert ("open" in page_of(report).all("details")[0]) is unfolded


def test_a_model_from_scratch_has_no_column_before(page_of: Callable[[Report], Page]) -> None:
    report = a_report()
    report |= {"base": None, "before": None}
    report["pictures"]["worst"][0]["dice_before"] = None
    page = page_of(report)
    assert "trained from scratch" in page.text
    assert {"before", "Before", "change", "Change"}.isdisjoint(cell for row in page.rows for cell in row)
    assert [len(page.row(name)) for name in ("Liver", "Time per case", "case-004")] == [5, 2, 5]
    assert "puts the version of liver-ct before this one in use again, if any" in page.text
    assert "Dice 0.694" in page.text


def test_a_single_split_is_stated(page_of: Callable[[Report], Page]) -> None:
    page = page_of(a_report())
    assert "One frozen split by patient" in page.text and "cross-validation" not in page.text
    assert "5 patients, 6 cases" in page.text


def test_cross_validation_is_stated_and_its_folds_are_drawn_apart(
    page_of: Callable[[Report], Page], tmp_path: Path
) -> None:
    page = page_of(a_report(folds=3, epochs=6))
    assert "3-fold cross-validation: the cases were split by patient into 3 parts" in page.text
    assert "One frozen split" not in page.text
    svg = re.findall(r"<svg.*?</svg>", html_in(tmp_path), re.DOTALL)
    assert len(svg) == 1
    assert [f"fold {fold} of 3" in svg[0] for fold in (1, 2, 3, 4)] == [True, True, True, False]
    assert svg[0].count("var(--label-0)") >= 3


def test_more_than_five_folds_go_on_in_a_second_drawing(page_of: Callable[[Report], Page], tmp_path: Path) -> None:
    page = page_of(a_report(folds=7, epochs=1))
    assert len(page.all("svg")) == 2
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_the_curves_have_every_loss_label_and_phase_in_the_pages_colours(
    page_of: Callable[[Report], Page], tmp_path: Path
) -> None:
    page = page_of(a_report(epochs=24))
    svg = re.findall(r"<svg.*?</svg>", html_in(tmp_path), re.DOTALL)[0]
    used = {(kind, int(index)) for kind, index in re.findall(r"var\(--(label|series|phase)-(\d+)\)", svg)}
    assert used == {(kind, n) for kind, count in {"label": 4, "series": 4, "phase": 2}.items() for n in range(count)}
    for words in ("Dice, validation cases", "Losses", "Learning rate", "Share of tokens kept", "step"):
        assert words in svg
    assert not re.search(r"(fill|stroke): #", svg)  # nothing keeps a colour that one of the themes would hide
    keys = page.text[page.text.index("Phases") : page.text.index("One validation slice")]
    for words in ("adapt", "prune", *LABELS, "total", "segmentation", "rehearsal", "prune head"):
        assert words in keys


def test_lines_of_labels_with_one_colour_differ_in_their_dashes(
    page_of: Callable[[Report], Page], tmp_path: Path
) -> None:
    page_of(a_report(epochs=24))
    styles = re.findall(r"border-top-style:(\w+);border-top-color:var\(--label-(\d)\)", html_in(tmp_path))
    assert {index: style for style, index in styles} == {"0": "solid", "1": "solid", "2": "solid", "3": "dashed"}


def test_a_training_without_gates_has_no_panel_of_kept_tokens(
    page_of: Callable[[Report], Page], tmp_path: Path
) -> None:
    report = a_report(epochs=24)
    for row in report["curves"]:
        row.pop("kept", None)
    page_of(report)
    assert "Share of tokens kept" not in html_in(tmp_path)


def test_a_single_row_without_validation_can_be_drawn(page_of: Callable[[Report], Page]) -> None:
    report = a_report()
    report["curves"] = [{"epoch": 1, "step": 20, "seconds": 1.0, "learning_rate": 0.0, "loss_total": 0.0, "dice": None}]
    assert "Losses" in page_of(report).text


def test_a_training_that_was_stopped_before_its_first_step_says_so(page_of: Callable[[Report], Page]) -> None:
    assert "No step was taken." in page_of(a_report(epochs=0)).text


@pytest.mark.parametrize("card", [LIGHT_CARD, DARK_CARD])
@pytest.mark.parametrize("color", [(255, 255, 255), (0, 0, 0), (241, 214, 145), (24, 28, 34), (128, 174, 128)])
def test_label_colours_stand_out_in_both_themes(color: tuple[int, int, int], card: tuple[int, int, int]) -> None:
    assert contrast(readable(color, card), card) >= LEAST_CONTRAST


def test_a_colour_that_stands_out_already_stays_as_it_is() -> None:
    assert readable((200, 40, 40), LIGHT_CARD) == (200, 40, 40)


def test_pictures_are_carried_inside_the_page(page_of: Callable[[Report], Page]) -> None:
    page = page_of(a_report(epochs=2))
    sources = [image["src"] or "" for image in page.all("img")]
    assert len(sources) == 6 + 1  # six of the 24 overlays, one worst case
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    shown = [image["alt"] or "" for image in page.all("img")]
    assert "epoch-001" in shown[0] and "epoch-024" in shown[5]
    assert "Dice 0.861 → 0.694 (\N{MINUS SIGN}0.167)" in page.text


@pytest.mark.parametrize("file", ["gone.png", "../secret.png", "report.json", "null\0.png", "worst-1.png/deeper.png"])
def test_a_picture_that_is_not_a_png_of_the_report_is_named_but_not_shown(
    page_of: Callable[[Report], Page], tmp_path: Path, file: str
) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path.parent / "secret.png")
    (tmp_path / "report.json").write_text("{}")
    report = a_report()
    report["pictures"] = {"worst": [{**report["pictures"]["worst"][0], "file": file}], "overlays": []}
    page = page_of(report)
    assert page.all("img") == []
    assert "could not be read" in page.text and "case-017" in page.text


def strings_of(value: Any) -> Iterator[str]:
    """Every string in a report, keys of its mappings that are names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from strings_of(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from strings_of(entry)


def hostile(value: Any, renamed: Callable[[str], str]) -> Any:
    """The report with every string value, and every name of a label or case, made dangerous."""
    names = {*LABELS, *CASES}
    if isinstance(value, dict):
        return {renamed(key) if key in names else key: hostile(entry, renamed) for key, entry in value.items()}
    if isinstance(value, list):
        return [hostile(entry, renamed) for entry in value]
    return renamed(value) if isinstance(value, str) else value


def test_every_string_is_escaped(page_of: Callable[[Report], Page], tmp_path: Path) -> None:
    plain = a_report(epochs=4)
    report = hostile(plain, lambda name: f"""{name}"'><b onload=x>$&amp;\u202e肝</style></svg>""")
    page = page_of(report)
    harmless = page_of(plain)
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in harmless.elements}
    assert not [attributes for _, attributes in page.elements if "onload" in attributes]
    shown = set(strings_of(report)) - set(strings_of({key: report[key] for key in ("date", "settings", "pictures")}))
    assert [name for name in shown if name not in page.text] == []


def test_the_page_asks_for_nothing_from_outside_and_runs_no_script(
    page_of: Callable[[Report], Page], tmp_path: Path
) -> None:
    page = page_of(a_report(folds=2, epochs=2))
    assert page.all("script") == [] and page.all("iframe") == []
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "srcset", "poster"):
                assert (value or "").startswith(("data:", "#"))
    html = html_in(tmp_path)
    assert "http:" not in html and "https:" not in html and "@import" not in html
    assert set(re.findall(r"url\(([^)])", html)) == {"#"}
    policy = next(meta["content"] or "" for meta in page.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")


def test_references_within_the_page_lead_somewhere(page_of: Callable[[Report], Page], tmp_path: Path) -> None:
    page = page_of(a_report(folds=2, epochs=2))
    identifiers = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    targets = {value[1:] for _, attributes in page.elements if (value := attributes.get("href") or "").startswith("#")}
    targets |= set(re.findall(r"url\(#([^)]*)\)", html_in(tmp_path)))
    assert "warnings" in targets and targets <= identifiers


def test_settings_are_shown_exactly(page_of: Callable[[Report], Page]) -> None:
    report = a_report()
    page = page_of(report)
    assert json.dumps(report["settings"], indent=2) in page.text


def test_the_way_from_the_base_is_told_with_what_else_was_tried(page_of: Callable[[Report], Page]) -> None:
    report = a_report()
    told = "50% of what was learned. Mean Dice during training at 25%: 0.902, 50%: 0.930, 75%: 0.930, 100%: 0.931"
    assert told in page_of(report).text
    for without in ({**report, "blend": None}, {key: value for key, value in report.items() if key != "blend"}):
        assert "Way from the base" not in page_of(without).text


def test_without_warnings_and_skipped_cases_there_is_no_such_part(page_of: Callable[[Report], Page]) -> None:
    report = a_report()
    report["warnings"], report["data"]["skipped"] = [], []
    page = page_of(report)
    assert "Warnings" not in page.text and "skipped" not in page.text


def test_distances_of_pictures_are_in_pixels(page_of: Callable[[Report], Page]) -> None:
    report = a_report()
    for which in ("before", "after"):
        for entry in report[which]["labels"].values():
            for name in ("hd95", "assd"):
                if f"{name}_mm" in entry:
                    entry[f"{name}_px"] = entry.pop(f"{name}_mm")
    page = page_of(report)
    heads = [cell for row in page.rows for cell in row]
    assert "HD95 px" in heads and "HD95 mm" not in heads
    assert page.row("Liver")[8] == f"{report['after']['labels']['Liver']['hd95_px']:.2f}"


def test_the_same_report_gives_the_same_page(page_of: Callable[[Report], Page], tmp_path: Path) -> None:
    page_of(a_report(folds=2, epochs=2))
    first = html_in(tmp_path)
    page_of(a_report(folds=2, epochs=2))
    assert html_in(tmp_path) == first


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_page(a_report(), tmp_path, tmp_path / "report.html")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_name_that_is_no_unicode_does_not_spoil_the_page(page_of: Callable[[Report], Page]) -> None:
    report = a_report()
    report["data"]["skipped"][0]["case"] = "case-\udcff"
    assert "case-?" in page_of(report).text
