"""How answers are written into bytes, one codec a file."""
