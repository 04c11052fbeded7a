"""Decisions about restores: which objects give the database at a position."""
