"""Reconstruct a scan while it is measured: sources that grow, the image so far, and its page."""
