"""A site's own word on "is this my kind of case?", one gate a file."""
