"""The engine on a Slicer scene, for 3D Slicer and for a browser. The rooms: scene <- workflow <- widgets or web."""
