"""Metrics of forecasts, of classes, and of spans."""
