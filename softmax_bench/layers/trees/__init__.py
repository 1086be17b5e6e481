"""Layers that decide along a tree path or between clusters: normalised by construction."""
