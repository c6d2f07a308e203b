"""The module that 3D Slicer loads. It registers and connects; what it does is in APFormerSlicerLib and apformer.

Nothing heavy is imported here: Slicer imports this file at its start, whether the module is used or not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

# As Slicer's own SampleData.py has them: name, file, SHA-256, which is also the address.
SAMPLES = (
    ("MRHead", "MR-head.nrrd", "cc211f0dfd9a05ca3841ce1141b292898b2dd2d3f08286affadf823a7e58df93"),
    ("CTLiver", "CTLiver.nrrd", "e16eae0ae6fefa858c5c11e58f0f1bb81834d81b7102e021571056324ef6f37e"),
)


class APFormerSlicer(ScriptedLoadableModule):
    """What Slicer's module list and help show."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        parent.title = _("APFormerSlicer")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "Terminologies"]
        parent.contributors = ["The APFormerSlicer maintainers"]
        parent.helpText = _(
            "Segment CT and MR images with APFormer in seconds, with or without a GPU; correct the result where the "
            "network is unsure; fine-tune it on your own cases. Nothing leaves the computer. "
            "Research software, not a medical device."
        )
        parent.acknowledgementText = _(
            "The network: X. Lin et al., The Lighter the Better: Rethinking Transformers in Medical Image Segmentation "
            'Through Adaptive Pruning, <a href="https://doi.org/10.1109/TMI.2023.3247814">IEEE Transactions on Medical '
            "Imaging, 2023</a>. What each model was trained on is told with the model."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData() -> None:
    """Offer images that the models can segment, in the module Sample Data; downloads are checked."""
    import SampleData

    for name, file, digest in SAMPLES:
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="APFormer",
            sampleName=name,
            uris=f"{slicer.util.TESTING_DATA_URL}SHA256/{digest}",
            fileNames=file,
            nodeNames=name,
            checksums=f"SHA256:{digest}",
        )


def registerTerminologies() -> None:
    """Make the models' labels known to Slicer's terminology selector."""
    from apformer.bundles import ModelLibrary
    from apformer.errors import OutputError
    from APFormerSlicerLib.scene.terminology import context_name, register
    from APFormerSlicerLib.workflow.models import Models

    for card in Models(ModelLibrary()).cards():
        if card.problem is None:
            try:
                register(slicer.modules.terminologies.logic(), card.labels, context_name(card.name))
            except OutputError as error:  # the segments have their codes without it
                logging.warning(str(error))


def logFolder() -> Path:
    """Where the jobs' logs are kept: beside Slicer's settings."""
    return Path(slicer.app.slicerUserSettingsFilePath).parent / "APFormer" / "Logs"


def resourceFolder() -> Path:
    return Path(__file__).resolve().parent / "Resources"


class APFormerSlicerWidget(ScriptedLoadableModuleWidget):
    """The panel in Slicer's window."""

    panel: Any = None

    def setup(self) -> None:
        super().setup()
        from APFormerSlicerLib.widgets import Panel
        from APFormerSlicerLib.widgets.install import Install
        from APFormerSlicerLib.widgets.packages import python_program
        from APFormerSlicerLib.widgets.worker import ProcessWorker

        registerTerminologies()
        self.panel = Panel(
            self.layout,
            slicer.mrmlScene,
            lambda: ProcessWorker(python_program(), logFolder()),
            Install(resourceFolder()),
            self.resourcePath("UI/APFormerSlicer.ui"),
        )

    def enter(self) -> None:
        """The module is shown."""
        if self.panel is not None:
            self.panel.enter()

    def exit(self) -> None:
        """Another module is shown."""
        if self.panel is not None:
            self.panel.exit()

    def cleanup(self) -> None:
        """Slicer is closed, or the module is loaded again. A scene that is closed is noticed by the panel itself."""
        if self.panel is not None:
            self.panel.close()
            self.panel = None


class APFormerSlicerLogic(ScriptedLoadableModuleLogic):
    """For scripts, without windows. Each call returns when its job is over; Slicer's windows stay alive meanwhile.

        logic = APFormerSlicerLogic()
        segmentation = logic.segment(slicer.util.getNode("CTLiver"), model="liver-ct")
        logic.close()

    See APFormerSlicerLib.widgets.scripting.Scripting for arguments and errors.
    """

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        from APFormerSlicerLib.widgets.scripting import Scripting

        self.scripting = Scripting(slicer.mrmlScene, resourceFolder(), logFolder())

    def install(self, training: bool = False, wheels: str | Path | None = None) -> None:
        """Install the Python packages that are missing, without asking; `wheels`: from a folder of wheel files."""
        self.scripting.install(training, wheels)

    def segment(self, volume: Any, model: str, **choices: Any) -> Any:
        """The segmentation node with the result. Choices: roi_node, segmentation_node, device, maps, progress."""
        registerTerminologies()
        return self.scripting.segment(volume, model, **choices)

    def segmentAll(self, volumes: Sequence[Any], model: str, **choices: Any) -> Any:
        """The batch, whose `items` tell what came of each volume. What fails does not stop the rest."""
        registerTerminologies()
        return self.scripting.segment_all(volumes, model, **choices)

    def fineTune(self, dataset: str | Path, name: str, base: str = "", **choices: Any) -> Any:
        """What came of fine-tuning `base` on the completed cases in the folder `dataset`. Choices: labels, minutes,
        keep, device, adopt, progress."""
        return self.scripting.fine_tune(dataset, name, base, **choices)

    def close(self) -> None:
        """End the worker process; the next call starts another one."""
        self.scripting.close()


class APFormerSlicerTest(ScriptedLoadableModuleTest):
    """Run by Slicer's own tests, and by Reload and Test."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_SegmentsAVolume()
        self.setUp()
        self.test_SaysWhatIsWrong()

    def test_SegmentsAVolume(self) -> None:
        """A phantom goes through the worker process and comes back as segments on its own grid."""
        from APFormerSlicerLib.scene.provenance import of_node

        logic = APFormerSlicerLogic()
        try:
            logic.install()
            volume = _phantom()
            segmentation = logic.segment(volume, model="hippocampus-mr", device="cpu", maps=())
            contents = segmentation.GetSegmentation()
            names = {contents.GetNthSegment(n).GetName() for n in range(contents.GetNumberOfSegments())}
            self.assertEqual(names, {"Anterior hippocampus", "Posterior hippocampus"})
            role = segmentation.GetReferenceImageGeometryReferenceRole()
            self.assertIs(segmentation.GetNodeReference(role), volume)
            self.assertIsNotNone(of_node(segmentation))  # its provenance
            again = logic.segmentAll([volume], "hippocampus-mr", device="cpu", maps=())
            self.assertEqual([item.status for item in again.items], ["done"])
        finally:
            logic.close()
        self.delayDisplay(_("A phantom was segmented."))

    def test_SaysWhatIsWrong(self) -> None:
        from apformer.errors import APFormerError

        logic = APFormerSlicerLogic()
        try:
            for volume, model in ((None, "hippocampus-mr"), (_phantom(), "no such model")):
                with self.assertRaises(APFormerError) as refused:
                    logic.segment(volume, model=model)
                self.assertTrue(refused.exception.remedy)
        finally:
            logic.close()


def _phantom() -> Any:
    """A bright ball in noise, 32 x 48 x 40 voxels of 1 mm."""
    import numpy as np

    k, j, i = np.indices((40, 48, 32)) - np.array([20, 24, 16])[:, None, None, None]
    noise = np.random.default_rng(0).normal(100, 10, k.shape)
    array = (noise + 80 * (k**2 + j**2 + i**2 < 100)).astype(np.int16)
    return slicer.util.addVolumeFromArray(array, name="Phantom")
