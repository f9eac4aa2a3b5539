"""Tasks on annotated texts."""
