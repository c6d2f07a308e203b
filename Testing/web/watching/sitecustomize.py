"""Python runs this at its start where it is on the path: each file that the process opens, and each program that it
starts, becomes a line of the file that $APFORMER_WATCHED names: the process, a word and the path, with tabs between."""

import os
import sys

_file = os.environ.get("APFORMER_WATCHED")
if _file:
    _descriptor = os.open(_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    _writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    _changes = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "shutil.rmtree"}

    def _watch(event, arguments):
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            mode, flags = arguments[1], arguments[2]
            writes = any(one in mode for one in "wax+") if isinstance(mode, str) else bool(flags & _writing)
            word = "write" if writes else "read"
        elif event in ("os.remove", "os.rmdir") and arguments[1] != -1:
            return  # of a tree that is removed, whose own event names it
        elif event in _changes:
            word = "write"
        elif event in ("subprocess.Popen", "os.system", "os.exec"):
            word = "run"
        else:
            return
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes, os.PathLike)) else repr(arguments[0])
        os.write(_descriptor, f"{os.getpid()}\t{word}\t{path!r}\n".encode("utf-8", "replace"))

    sys.addaudithook(_watch)
