"""Segmenting: volume and bundle in, labels on the same grid out. Imports torch, numpy, SimpleITK, nothing heavier."""

from .devices import choose_device
from .segmenter import Result, Segmenter

__all__ = ["Result", "Segmenter", "choose_device"]
