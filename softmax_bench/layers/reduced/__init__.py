"""Layers that score all classes, the rare ones in fewer dimensions."""
