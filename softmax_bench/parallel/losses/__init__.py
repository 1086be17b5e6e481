"""Losses over classes that are sharded over processes."""
