"""A hospital's Flower app."""
