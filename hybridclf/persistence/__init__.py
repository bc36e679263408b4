"""Saving and loading of a fitted classifier: its folder, and each part of it in a file of its own."""

from .folder import FORMAT_VERSION, finding_damage, load, read_description, save

__all__ = ["FORMAT_VERSION", "finding_damage", "load", "read_description", "save"]
