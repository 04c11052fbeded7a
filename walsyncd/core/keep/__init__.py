"""Decisions about upkeep: when a base or a drill is due, and what retention removes."""
