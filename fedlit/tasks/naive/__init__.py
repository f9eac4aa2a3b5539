"""Predictors without a network, for the floor of a comparison."""
