"""The page in a real Chromium: a site's data set, a case added to it, and a model that learns from it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.bundles import ModelLibrary
from apformer.files import write_scalar
from finetune_samples import a_ball, a_base, a_site
from web_page import SLOW, WebPage
from web_server import serving

pytestmark = pytest.mark.long


def test_a_case_is_added_and_a_model_learns_from_the_site_is_adopted_and_rolled_back(
    installed: None, a_user: Any, tmp_path: Path
) -> None:
    library = ModelLibrary([tmp_path / "models"])
    a_base(library)
    site = a_site(tmp_path / "site")
    upload = tmp_path / "ball.nii.gz"
    write_scalar(upload, a_ball(8)[0])
    with serving("--site", str(site.root), models=tmp_path / "models") as server:
        user = WebPage(a_user, server.address)
        page = user.page
        user.upload(upload)
        user.wait_for_image("ball")
        user.press("2")
        page.locator(".row-item", has_text="ball 1.0.0").click()
        user.segment()
        page.keyboard.press("a")
        page.keyboard.press("4")
        assert page.locator("tr", has_text="case").count() == 8
        page.get_by_text("Add the case").click()
        page.locator(".notice-remedy", has_text="Give the patient's ID").wait_for(timeout=SLOW)
        page.get_by_label("Patient ID").fill("patient 9")
        page.get_by_label("Patient ID").blur()
        page.get_by_text("No segment has the name of Hole.").wait_for(timeout=SLOW)
        page.locator(".v-select", has_text="Structures without a segment").click()
        page.locator(".v-list-item", has_text="were not outlined").click()
        page.get_by_text("Add the case").click()
        page.get_by_text("Stored as").wait_for(timeout=SLOW)
        page.locator("tr", has_text="not outlined: Hole").wait_for(timeout=SLOW)
        site.reload()
        assert [case.status for case in site.cases()] == ["completed"] * 9
        assert site.cases()[-1].revision is not None and site.cases()[-1].revision.labelled == (1,)

        page.keyboard.press("5")
        page.get_by_label("Minutes").fill("0.6")  # a busy machine makes no 24 steps in less
        page.get_by_label("Minutes").blur()
        page.locator(".estimate:not(.refused):visible", has_text="needs").wait_for(timeout=SLOW)
        page.get_by_role("button", name=re.compile("^Fine-tune$")).last.click()
        page.locator(".chart svg polyline").first.wait_for(timeout=SLOW)
        page.get_by_role("button", name="Adopt").click(timeout=SLOW)
        page.locator(".versions tr.chosen", has_text="1.1.0").wait_for(timeout=SLOW)
        assert library.find("ball").version == "1.1.0"
        with page.expect_download(timeout=SLOW) as download:
            page.locator(".versions tr.chosen").get_by_text("Download").click()
        assert "metadata.json" in " ".join(zipfile.ZipFile(download.value.path()).namelist())
        page.get_by_text("Roll back").click()
        page.locator(".versions tr.chosen", has_text="1.0.0").wait_for(timeout=SLOW)
        assert library.find("ball").version == "1.0.0"
