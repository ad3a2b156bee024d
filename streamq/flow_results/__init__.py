"""What callers get of flows: their values, how far they are, and what has become of each part."""
