"""``fedlit sweep``: a grid of runs."""
