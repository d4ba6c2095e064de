"""Devices, and several processes that share a run."""
