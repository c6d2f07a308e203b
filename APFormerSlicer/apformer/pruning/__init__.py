"""Making networks lighter, and counting by how much."""

from .flops import Macs, count_macs, count_parameters

__all__ = ["Macs", "count_macs", "count_parameters"]
