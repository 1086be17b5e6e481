"""Layers that score the target and a sample of classes drawn by frequency."""
