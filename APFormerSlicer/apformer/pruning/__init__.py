"""Making networks lighter, and counting by how much."""

from .flops import Macs, count_macs, count_parameters
from .plugin import PrunedNetwork, prune_attention

__all__ = ["Macs", "PrunedNetwork", "count_macs", "count_parameters", "prune_attention"]
