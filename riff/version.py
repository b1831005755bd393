"""The version of riff."""

__version__ = "0.1.0"
