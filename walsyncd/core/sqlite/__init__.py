"""What SQLite writes: formats and checksums of the database file, the WAL and the wal-index."""
