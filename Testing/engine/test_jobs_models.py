"""Changes to the models, as the worker makes them: what can be asked, and what is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from apformer.bundles import ModelLibrary
from apformer.errors import BundleError, OutputError
from apformer.jobs.handlers import HANDLERS
from apformer.jobs.messages import Fields, RequestError
from bundle_samples import save_sample
from job_samples import run_here


@pytest.fixture
def a_library(tmp_path: Path) -> ModelLibrary:
    """One model, which came with the program."""
    save_sample(tmp_path / "bundled" / "hippocampus-test")
    return ModelLibrary([tmp_path / "the user's", tmp_path / "bundled"])


def change(library: ModelLibrary, what: str, **fields: Any) -> dict[str, Any]:
    return run_here("models", change=what, roots=[str(root) for root in library.roots], **fields)


def test_a_model_goes_out_and_an_import_over_it_waits_for_a_yes(a_library: ModelLibrary, tmp_path: Path) -> None:
    exported = change(a_library, "export", model="hippocampus-test", path=str(tmp_path / "out.zip"))
    assert exported == {"path": str(tmp_path / "out.zip")} and (tmp_path / "out.zip").is_file()
    asked = change(a_library, "import", path=exported["path"])
    assert asked == {"present": True, "name": "hippocampus-test"} and a_library.find(
        "hippocampus-test"
    ).directory.is_relative_to(tmp_path / "bundled")
    done = change(a_library, "import", path=exported["path"], replace=True)
    assert done == {"present": False, "name": "hippocampus-test", "version": "1.0.0"}
    assert a_library.find("hippocampus-test").directory.is_relative_to(tmp_path / "the user's")


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("activate", {"model": "hippocampus-test"}),
        ("activate", {"model": "hippocampus-test@9.9.9"}),
        ("rollback", {"model": "hippocampus-test"}),
        ("export", {"model": "none", "path": "out.zip"}),
        ("import", {"path": "none.zip"}),
    ],
)
def test_what_cannot_be_is_told_with_the_remedy(a_library: ModelLibrary, what: str, fields: dict[str, Any]) -> None:
    with pytest.raises((BundleError, OutputError)) as refused:
        change(a_library, what, **fields)
    assert refused.value.remedy and a_library.find("hippocampus-test").version == "1.0.0"


@pytest.mark.parametrize(
    "fields",
    [
        {"change": "remove", "model": "x"},
        {"change": "activate"},
        {"change": "export", "model": "x"},
        {"change": "import"},
        {"change": "rollback", "model": "x", "replace": True},
        {"change": "import", "path": "x.zip", "model": "x"},
    ],
)
def test_a_request_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    given = Fields("models", fields)
    with pytest.raises(RequestError):
        HANDLERS["models"].parse(given)
        given.close()
