"""Layers that score the targets of the batch."""
