"""Scores of mentions and relations."""
