"""APFormer engine: arrays in, arrays out; knows nothing of Slicer, VTK or Qt."""

__version__ = "0.1.0"
