"""One file per command. Each has `add_parser`, which imports nothing heavy, and a function that does the work."""

from . import benchmark, dataset, demo, evaluate, finetune, models, segment, serve, train

COMMANDS = (segment, evaluate, train, finetune, dataset, models, benchmark, demo, serve)

__all__ = ["COMMANDS", "benchmark", "dataset", "demo", "evaluate", "finetune", "models", "segment", "serve", "train"]
