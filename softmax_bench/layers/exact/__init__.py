"""Layers that score all classes."""
