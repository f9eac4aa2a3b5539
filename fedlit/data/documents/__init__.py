"""Annotated texts: mentions and the relations between them."""
