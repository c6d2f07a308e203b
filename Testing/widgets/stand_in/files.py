"""slicer.app.coreIOManager(): files of scenes and volumes, through MRML's own readers and writers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import slicer


class CoreIOManager:
    """What slicer.util.loadVolume, loadScene and saveScene ask for; other kinds of files are an error."""

    def loadNodes(self, kind: str, properties: dict[str, Any], loaded: Any, messages: Any) -> bool:
        path = str(properties["fileName"])
        if kind == "SceneFile":
            with tempfile.TemporaryDirectory() as cache:
                _cache_in(cache)
                return bool(slicer.mrmlScene.ReadFromMRB(path, bool(properties.get("clear")), messages))
        assert kind == "VolumeFile", f"the stand-in reads no {kind}"
        storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", Path(path).name.partition(".")[0])
        storage.SetFileName(path)
        if not storage.ReadData(node):
            slicer.mrmlScene.RemoveNode(node)
            slicer.mrmlScene.RemoveNode(storage)
            return False
        node.SetAndObserveStorageNodeID(storage.GetID())
        node.CreateDefaultDisplayNodes()
        loaded.AddItem(node)
        return True

    def saveNodes(self, kind: str, properties: dict[str, Any], messages: Any) -> bool:
        assert kind == "SceneFile" and properties["fileName"].endswith(".mrb"), f"the stand-in writes no such {kind}"
        return bool(slicer.mrmlScene.WriteToMRB(properties["fileName"], None, messages))


def _cache_in(folder: str) -> None:
    """Where the scene unpacks bundles."""
    cache, manager = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
    cache.SetRemoteCacheDirectory(folder)
    manager.SetCacheManager(cache)
    slicer.mrmlScene.SetCacheManager(cache)
    slicer.mrmlScene.SetDataIOManager(manager)
