"""A pytest plugin that keeps evidence of what tests ran; pytest and the standard library only (docs/testing.md)."""
