"""Compaction, pruning and restore drills."""
