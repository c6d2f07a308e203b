"""The images of a folder, one after another: from files to files, without the scene."""

from __future__ import annotations

from pathlib import Path

from .batch import Batch, Item
from .inputs import Choice
from .runs import Run
from .segmenting import Segmenting

_VOLUMES = ".seg.nrrd"  # what Slicer opens as a segmentation, with names, colours and terminology


class FileItem(Item):
    """An image file or DICOM folder of a batch, and the file that its result goes to."""

    def __init__(self, choice: Choice, source: Path, output: Path) -> None:
        super().__init__(choice, source.name)
        self.source, self.output = source, output


class FolderBatch(Batch):
    """The images in a folder.

    Args:
        folder: image files, and DICOM folders below it.
        output: where the results go: NAME.seg.nrrd, of pictures NAME.png. It is made when it is not there.
        choice: model and device.

    Raises:
        InputError: there is no image in it. OutputError: a result would replace an image, or cannot be written.
    """

    def __init__(self, segmenting: Segmenting, folder: Path, output: Path, choice: Choice) -> None:
        from apformer.commands.cases import find_cases
        from apformer.commands.outputs import place_outputs

        super().__init__(segmenting, [])
        cases, _ = find_cases([folder])
        pictures = [case for case in cases if case.is_picture]
        volumes = [case for case in cases if not case.is_picture]
        tasks = place_outputs(volumes, batch=True, output=output, suffix=_VOLUMES, maps={})
        tasks += place_outputs(pictures, batch=True, output=output, suffix=None, maps={})
        self.items = [FileItem(choice, task.case.source, task.labels) for task in tasks]

    def _begin(self, item: Item) -> Run:
        assert isinstance(item, FileItem)
        item.output.parent.mkdir(parents=True, exist_ok=True)
        return self._segmenting.start_file(item.source, item.output, item.choice.model, item.choice.device)
