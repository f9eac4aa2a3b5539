"""File formats, read without knowledge of clients."""
