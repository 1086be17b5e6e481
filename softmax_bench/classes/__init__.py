"""What layers know about the classes: counts, noise distributions and trees."""
