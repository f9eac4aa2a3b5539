"""Local training, scores and predictions on one device: the :class:`~fedlit.engine.engine.Engine` and its two kinds."""
