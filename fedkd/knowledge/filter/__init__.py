"""Rules that leave out whole sites, one rule a file."""
