"""Results of trials and the store that holds them; needs no torch."""
