"""Where queries come from when no public set exists, one generator a file."""
