"""Metrics of an image: against another image, and against the patterns."""
