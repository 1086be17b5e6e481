"""Layers that decide along a path or between clusters of classes: normalised by construction."""
