"""Two sets of results compared: every ratio with an interval and a verdict."""
