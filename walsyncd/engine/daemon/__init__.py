"""The daemon's wiring: databases, destinations, reload, control socket, status, metrics."""
