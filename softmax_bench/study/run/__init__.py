"""Runs a plan and shows its progress."""
