"""Layers that score the target and a sample drawn from a proposal that follows the model."""
