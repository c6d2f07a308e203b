"""Models to choose from: what a list shows, search, and which one is suggested for an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.bundles import ModelLibrary
from apformer.errors import BundleError, InputError
from apformer.volume import Source, Volume
from APFormerSlicerLib.workflow import Workflow, best
from APFormerSlicerLib.workflow.models import Models
from APFormerSlicerLib.workflow.suggestion import suggest
from workflow_samples import PlayedWorker, a_block, add_version


def mr(
    shape: tuple[int, ...] = (20, 20, 20), low: int = 0, modality: str | None = "MR", kind: str = "memory"
) -> Volume:
    array = np.random.default_rng(0).integers(low, 900, shape).astype(np.int16)
    return Volume(array, np.eye(4), modality, Source(None, kind=kind))


def suggested(workflow: Workflow, volume: Volume, words: str = "") -> list[str]:
    return [found.card.name for found in suggest(workflow.models.cards(), volume, words)]


def test_a_card_says_what_a_user_chooses_by(a_workflow: Workflow) -> None:
    card = a_workflow.models.find("slices")
    assert (card.title, card.origin, card.label_names) == ("slices 1.0.0", "bundled", ("anterior", "posterior"))
    assert card.mean_dice == pytest.approx(0.85) and card.cases == 12
    megabytes = f"{card.size_bytes / 1e6:.1f} MB"
    assert card.line == f"MR, slices: anterior, posterior. Dice 0.85 in 12 cases; {megabytes}. CC0 1.0"
    assert "Dice not measured" in a_workflow.models.find("volumes").line


def test_a_card_tells_what_the_last_image_took_on_this_computer(
    a_workflow: Workflow, a_worker: PlayedWorker, a_volume_node: Any, tmp_path: Path
) -> None:
    a_workflow.segment(a_volume_node, model="slices")
    a_worker.held = []  # what is done aside waits, such as writing it down
    a_worker.last.finish(a_block((5, 6, 7)), seconds=2.5)
    lines = {card.name: card.line for card in a_workflow.models.cards()}
    assert "2.5 s for the last image here" in lines["slices"] and "last image" not in lines["volumes"]
    assert "last image" not in Models(a_workflow.library).find("slices").line
    a_worker.let_go()
    assert "2.5 s" in Models(a_workflow.library).search("slices")[0].line  # in another program
    assert a_workflow.library.list()  # the file is no model
    (a_workflow.library.user_root / "timings.json").write_text("[1", encoding="utf-8")
    assert "last image" not in Models(a_workflow.library).search("slices")[0].line


def test_the_sites_own_models_come_first_and_are_marked(a_workflow: Workflow, a_library: ModelLibrary) -> None:
    version = add_version(a_library, "slices")
    assert [card.name for card in a_workflow.models.cards()] == ["liver-ct", "photos", "slices", "volumes"]
    a_library.activate("slices", version)
    cards = a_workflow.models.cards()
    assert [card.name for card in cards] == ["slices", "liver-ct", "photos", "volumes"]
    assert cards[0].is_own and cards[0].title == f"slices {version} (our own)"


def test_a_model_of_which_no_version_was_adopted_is_not_offered(a_workflow: Workflow, a_library: ModelLibrary) -> None:
    from version_samples import copy_as

    source = a_library.find("slices").directory
    a_library.add_version(lambda folder: copy_as(source, folder, "ours", "1.0.0"))
    assert "ours" not in [card.name for card in a_workflow.models.cards()]
    assert a_workflow.models.find("ours@1.0.0").is_own
    with pytest.raises(BundleError, match="No version of ours is active"):
        a_workflow.models.find("ours")


def test_a_model_that_cannot_be_used_is_listed_last_with_the_reason(a_workflow: Workflow, tmp_path: Path) -> None:
    (tmp_path / "bundled" / "liver-ct" / "docs" / "README.md").unlink()
    (tmp_path / "bundled" / "empty").mkdir()
    *_, empty, damaged = a_workflow.models.cards()
    assert (empty.name, damaged.name) == ("empty", "liver-ct")
    assert "lacks the file docs/README.md" in damaged.line and "cannot be used" in damaged.title
    assert "liver-ct" not in suggested(a_workflow, mr(modality="CT"))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ANTERIOR ct", ["liver-ct"]),
        ("hippocampus", ["liver-ct", "photos", "slices", "volumes"]),
        ("  ", ["liver-ct", "photos", "slices", "volumes"]),
        ("kidney", []),
        ("脳", []),
    ],
)
def test_a_search_finds_all_words_in_names_labels_and_codes(a_workflow: Workflow, text: str, names: list[str]) -> None:
    assert [card.name for card in a_workflow.models.search(text)] == names


def test_the_modality_decides_and_what_cannot_be_read_is_left_out(a_workflow: Workflow) -> None:
    assert suggested(a_workflow, mr(modality="CT")) == ["liver-ct", "slices", "volumes"]
    assert suggested(a_workflow, mr())[0] in ("slices", "volumes")
    assert suggested(a_workflow, mr((1, 20, 20))) == ["slices", "liver-ct"]
    assert suggested(a_workflow, mr((3, 1, 20, 20), modality="RGB", kind="picture")) == ["photos"]


def test_values_below_air_speak_for_ct_where_nothing_else_is_known(a_workflow: Workflow) -> None:
    found = suggest(a_workflow.models.cards(), mr(low=-1000, modality=None))
    assert best(found) is found[0] and found[0].card.name == "liver-ct"
    assert best(suggest(a_workflow.models.cards(), mr(modality=None, shape=(20, 20, 20)))) is None


def test_a_whole_head_is_not_for_a_model_of_crops(a_workflow: Workflow) -> None:
    assert suggested(a_workflow, mr((20, 20, 20)))[0] == "slices"
    found = {s.card.name: s for s in suggest(a_workflow.models.cards(), mr((200, 20, 20)))}
    assert "region of interest" in found["volumes"].why and found["volumes"].points < found["slices"].points


def test_the_name_of_the_image_counts(a_workflow: Workflow) -> None:
    found = suggest(a_workflow.models.cards(), mr(modality="CT"), "3: CT_Liver left")
    assert found[0].card.name == "liver-ct" and "name says liver-ct" in found[0].why


def test_suggestions_are_for_the_chosen_volume(
    a_workflow: Workflow, a_volume_node: Any, make_volume_node: Callable[..., Any]
) -> None:
    with pytest.raises(InputError, match="No volume"):
        a_workflow.suggestions()
    a_workflow.state.volume = make_volume_node(np.full((5, 6, 7), -900, np.int16), "CT")
    assert a_workflow.suggestions()[0].card.name == "liver-ct"
    assert a_volume_node in a_workflow.volumes()
