"""Metrics, plots, comparison and report of reconstructions."""
