"""Simulated data, and small files in official layouts that stand in for real ones."""
