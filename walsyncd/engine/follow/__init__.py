"""One database's WAL becomes segments that are proven complete."""
