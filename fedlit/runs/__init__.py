"""A run's settings, its folder, its committed rounds, and what a resume must repeat."""
