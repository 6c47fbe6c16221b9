"""How a site's speaker comes to be, speaks, and what that costs: one mechanism a file."""
