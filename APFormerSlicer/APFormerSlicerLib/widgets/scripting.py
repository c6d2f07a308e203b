"""The workflow for scripts in Slicer: calls that return when their job is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import slicer
from apformer.errors import APFormerError, ConfigError

from ..workflow import Batch, Choice, Choices, HeadlessWorker, Run, Trained, Workflow
from ..workflow.inputs import images_of
from .install import Install, Source
from .packages import python_program

Progress = Callable[[Run], None]
"""Called with the run (`fraction`, `message`, `eta_s`) whenever something is new."""

_STEP_S = 0.1  # between two looks at Slicer's own events


class Scripting:
    """One worker process, started by the first job and warm for the next ones.

    Args:
        scene: vtkMRMLScene.
        resources: the folder of the module's requirements files.
        logs: folder for one log file per job.
    """

    def __init__(self, scene: Any, resources: Path, logs: Path) -> None:
        self._scene, self._resources, self._logs = scene, resources, logs
        self._worker: HeadlessWorker | None = None
        self._workflow: Workflow | None = None

    def install(self, training: bool = False, wheels: str | Path | None = None) -> None:
        """Install the Python packages that are missing, without asking.

        Args:
            training: those of fine-tuning, too.
            wheels: a folder of wheel files, for computers without internet.

        Raises:
            InstallError: it could not be done.
        """
        source = Source(None if wheels is None else Path(wheels))
        Install(self._resources, lambda *_question: source).ensure(training)

    def segment(self, volume: Any, model: str, progress: Progress | None = None, **choices: Any) -> Any:
        """Segment a volume node into a new segmentation, which is returned.

        Args:
            model: such as "liver-ct", or exactly "liver-ct@1.1.0".
            choices: roi_node, segmentation_node (to write to), device, maps, frame, overwrite: as in `workflow.Choice`.

        Raises:
            APFormerError: it cannot be segmented, or was cancelled, as when the scene was closed.
        """
        _, workflow = self._ready()
        run = workflow.segmenting.start(Choice(volume, model, **choices))
        return self._outcome(run, progress).written.segmentation_node

    def segment_all(self, volumes: Sequence[Any], model: str, **choices: Any) -> Batch:
        """Segment several volume nodes; what fails does not stop the rest. Maps of uncertainty, label maps and what
        else is no image are left out, so that all volumes of a scene may be passed.

        Returns:
            The batch; each of its `items` has `title`, `status`, `reason` and `run.outcome`; `left_out` has names.

        Raises:
            APFormerError: there is none, or nothing can be started.
        """
        _, workflow = self._ready()
        wanted, left_out = images_of(self._scene, volumes)
        batch = Batch(workflow.segmenting, [Choice(volume, model, **choices) for volume in wanted], left_out)
        batch.start()
        self._wait(lambda: batch.over)
        return batch

    def fine_tune(
        self, dataset: str | Path, name: str, base: str = "", progress: Progress | None = None, **choices: Any
    ) -> Trained:
        """Fine-tune a model on the completed cases of a data set; what came of it.

        Args:
            dataset: its folder, which the panel shows from now on.
            name: of the model to write, a new version where it exists.
            base: the model to begin with; "" trains from scratch.
            choices: labels, minutes, keep, device, adopt and others: as in `workflow.Choices`.

        Raises:
            APFormerError: it cannot be trained, or was cancelled.
        """
        _, workflow = self._ready(training=True)
        workflow.collecting.choose(dataset)
        training = workflow.tuning.start(Choices(name=name, base=base, **choices))
        return self._outcome(training.run, progress)

    def close(self) -> None:
        """End the worker process; the next job starts another one."""
        if self._workflow is not None:
            self._workflow.close()
        if self._worker is not None:
            self._worker.close()
        self._workflow = self._worker = None

    def _ready(self, training: bool = False) -> tuple[HeadlessWorker, Workflow]:
        if Install(self._resources).missing(training):
            raise ConfigError(
                "Python packages that the job needs are not installed.",
                "It cannot run without them.",
                f"Call install({'training=True' if training else ''}) once, or press the button in the panel once.",
            )
        if self._worker is None or self._workflow is None:
            self._worker = HeadlessWorker(self._logs, python=python_program())
            self._workflow = Workflow(self._scene, self._worker)
        return self._worker, self._workflow

    def _outcome(self, run: Run, progress: Progress | None) -> Any:
        if progress is not None:
            run.changed.connect(progress)
        self._wait(lambda: run.over)
        if run.status != "done":
            raise run.error or APFormerError(
                f"The {run.title} was cancelled.", "There is no result.", "Start it again."
            )
        return run.outcome

    def _wait(self, is_over: Callable[[], bool]) -> None:
        """Hear the worker until it is over; what the user does in Slicer's windows goes on."""
        while not is_over():
            if self._worker is None:  # closed by something that the user did meanwhile
                return
            self._worker.deliver(_STEP_S)
            slicer.app.processEvents()
