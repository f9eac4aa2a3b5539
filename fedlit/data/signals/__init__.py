"""Sampled signals, cut into windows for forecasting."""
