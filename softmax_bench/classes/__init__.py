"""Facts about the classes that layers are built from: counts, noise distributions, trees."""
