"""The HTML page and the terminal output."""
