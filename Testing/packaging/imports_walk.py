"""Which packages code can import, found in its text: every import statement that can be reached, lazy ones too."""

from __future__ import annotations

import ast
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """A module that is imported from outside of the sources: its top-level name, and where."""

    package: str
    where: str


@dataclass
class Walk:
    """What can be reached.

    Args:
        sources: the folder that is on the import path.
        by_name: rooms whose functions serve others one by one (`from room.module import function`): what such a
            function imports when it is called counts only if its name is imported from outside of the room.
        shut: modules and rooms that are not entered.

    Attributes:
        modules: of the sources. outside: what they import from elsewhere and that is not Python's own.
    """

    sources: Path
    by_name: tuple[str, ...] = ()
    shut: tuple[str, ...] = ()
    modules: set[str] = field(default_factory=set)
    outside: set[Import] = field(default_factory=set)

    def from_modules(self, starts: Iterable[str]) -> Walk:
        waiting: deque[tuple[str, str]] = deque((start, "") for start in starts)
        seen: set[tuple[str, str]] = set()
        while waiting:
            module, name = waiting.popleft()
            path = self._file_of(module)
            if path is None or (module, name) in seen or any(_in(module, room) for room in self.shut):
                continue
            seen.add((module, name))
            self.modules.add(module)
            waiting.extend((parent, "") for parent in _parents(module))  # importing a.b.c runs a and a.b
            for line, wanted, wanted_name in self._imports(path, module, name):
                if self._file_of(wanted.partition(".")[0]) is not None:
                    inside = any(_in(module, room) and _in(wanted, room) for room in self.by_name)
                    waiting.append((wanted, "" if inside else wanted_name))
                    if wanted_name:
                        waiting.append((f"{wanted}.{wanted_name}", ""))  # a name may be a module
                elif wanted.partition(".")[0] not in sys.stdlib_module_names:
                    where = f"{path.relative_to(self.sources).as_posix()}:{line}"
                    self.outside.add(Import(wanted.partition(".")[0], where))
        return self

    def _imports(self, path: Path, module: str, name: str) -> Iterator[tuple[int, str, str]]:
        """(line, module, name in it or "") of the import statements that run when `name` of the module is used."""
        tree = ast.parse(path.read_text(encoding="utf-8"))
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        lazy = not any(_in(module, room) for room in self.by_name)
        wanted = None if lazy else _called(tree, name)
        for node in _statements(tree, wanted):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name, "") for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = package.split(".")
                    base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
                yield from ((node.lineno, base, alias.name) for alias in node.names)
            elif _is_import_call(node):
                yield node.lineno, node.args[0].value, ""  # type: ignore[attr-defined]

    def _file_of(self, name: str) -> Path | None:
        path = self.sources.joinpath(*name.split("."))
        for candidate in (path / "__init__.py", path.with_suffix(".py")):
            if candidate.is_file():
                return candidate
        return None


def _called(tree: ast.Module, name: str) -> set[str]:
    """The functions and classes of a module that `name` can use, itself too."""
    bodies = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one in bodies and one not in found:
            found.add(one)
            waiting += [node.id for node in ast.walk(bodies[one]) if isinstance(node, ast.Name)]
    return found


def _statements(tree: ast.AST, wanted: set[str] | None, depth: int = 0) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees, and imports whose absence is caught; of the functions and
    classes of a module those that are `wanted`, None for all."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for other in node.orelse:
                yield other
                yield from _statements(other, wanted, depth + 1)
        elif isinstance(node, ast.Try) and any(_catches_absence(handler) for handler in node.handlers):
            for part in (*node.handlers, *node.orelse, *node.finalbody):
                yield from _statements(part, wanted, depth + 1)
        elif depth or wanted is None or not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name in wanted:
            yield node
            yield from _statements(node, wanted, depth + 1)


def _catches_absence(handler: ast.ExceptHandler) -> bool:
    return handler.type is not None and any(
        isinstance(node, ast.Name) and node.id in ("ImportError", "ModuleNotFoundError")
        for node in ast.walk(handler.type)
    )


def _is_import_call(node: ast.AST) -> bool:
    """`importlib.import_module("name")` and `__import__("name")`."""
    if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
        return False
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return called in ("import_module", "__import__") and isinstance(node.args[0].value, str)


def _in(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]
