"""One file per command. Each has `add_parser`, which imports nothing heavy, and a function that does the work."""

from . import benchmark, demo, evaluate, models, segment, train

COMMANDS = (segment, evaluate, train, models, benchmark, demo)

__all__ = ["COMMANDS", "benchmark", "demo", "evaluate", "models", "segment", "train"]
