"""Layers that tell the data's class from sampled ones: noise-contrastive estimation and its kin."""
