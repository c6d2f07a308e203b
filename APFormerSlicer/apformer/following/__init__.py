"""One patient: the network learns from what a user has drawn on some slices, and proposes the rest of this volume."""
