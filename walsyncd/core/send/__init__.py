"""Decisions about uploads: what is sent next, how much at once, how fast, and when it is tried again."""
