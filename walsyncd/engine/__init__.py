"""Doers: they ask the core what to do and have the adapters do it."""
