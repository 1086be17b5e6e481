"""The trials of a study, and how long each will take."""
