"""Runs a plan and shows how far it is."""
