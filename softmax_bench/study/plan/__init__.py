"""What is to be run: the trials of a study, and what each will take."""
