"""Stored results as tables, and reasons to doubt them."""
