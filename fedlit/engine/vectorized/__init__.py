"""Several clients in one pass over the backbone that they share."""
