"""Stored results as tables, and what is doubtful about them."""
