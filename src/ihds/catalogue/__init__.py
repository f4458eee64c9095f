"""What exists: datasets described, published and found."""
