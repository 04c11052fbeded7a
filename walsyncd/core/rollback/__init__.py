"""Rollback journals: which pages changed between two committed states, or why only a scan can tell."""
