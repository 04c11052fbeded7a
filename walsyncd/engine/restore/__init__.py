"""A replica is listed, planned, restored and verified."""
