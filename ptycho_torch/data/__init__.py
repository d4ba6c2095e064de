"""Scans, groups of their patterns, probes, and simulated scans."""
