"""Runs and studies on disk: what was trained, what it measured, and how to ask it (no torch)."""
