"""A stand-in for Slicer's Qt side on PySide6, so that the module file and the panels run unmodified without Slicer.

What is real: Qt's widgets, layouts, event loop and processes; the .ui file; the MRML scene and its nodes (slicer-core);
slicer.util, which slicer-core brings. What is played: PythonQt's ways of naming things (`pythonqt`), CTK's and qMRML's
widgets (`ctk_widgets`, `node_widgets`, `segment_widgets`), slicer.app and the module manager (`application`), and the
base classes of scripted modules (`scripted`). It refuses what PythonQt lacks: an attribute that no C++ object has, a
property called like a method, an enum behind its type's name, a signal that does not exist, keywords in constructors.

    with stand_in.start() as host:
        widget = host.open_module(path)     # the ScriptedLoadableModuleWidget of the module file
        host.settle()                       # let events through
        host.raise_slot_errors()            # what Qt would only have printed

What it cannot prove: that a method or signal exists in Qt 5 and in the real CTK and qMRML classes (their tables here
were written from Slicer's source), how PythonQt converts rare types, what is drawn in slice and 3D views, and the time
anything takes. `Testing/run_in_slicer.py` does the same journey in a real Slicer.
"""

from .host import Host, start
from .pythonqt import available

__all__ = ["Host", "available", "start"]
