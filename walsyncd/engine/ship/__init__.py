"""Rows of the journal become objects in storage, in order, written by one owner."""
