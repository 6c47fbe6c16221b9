"""Rules by which many answers become one consensus, one rule a file."""
