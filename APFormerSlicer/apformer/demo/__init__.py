"""The demonstration: a bundled model on a real volume that installs with a package."""
