"""Layers that score the target and a sample from a proposal that follows the model."""
