"""What came out of a trial, and where it is stored. Needs no torch."""
