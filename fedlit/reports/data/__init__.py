"""``fedlit data``: what would be read, as text, HTML and JSON."""
