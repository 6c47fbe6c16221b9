"""How far a model is from a consensus, one loss a file."""
