"""Layers that distinguish the data's class from sampled ones: NCE and related methods."""
