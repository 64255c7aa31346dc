"""Looks at a model from outside."""
