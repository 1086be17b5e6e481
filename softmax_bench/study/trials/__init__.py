"""Running a single trial, which returns its record."""
