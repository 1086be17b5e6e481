"""One trial: it goes in, and its record comes out."""
