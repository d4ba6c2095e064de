"""A pytest plugin that keeps evidence of what tests ran (docs/testing.md)."""
