"""Data-parallel training, with row-sparse gradients."""
