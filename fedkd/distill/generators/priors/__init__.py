"""Pictures made by code and a seed alone, one kind a file."""
