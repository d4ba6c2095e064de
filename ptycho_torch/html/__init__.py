"""The page maker."""
