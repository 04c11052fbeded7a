"""One outside thing each, no decisions, errors translated at the edge."""
