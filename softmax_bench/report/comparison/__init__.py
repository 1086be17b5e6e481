"""Comparison of two sets of results, with an interval and a verdict for every ratio."""
