"""walsyncd's own state on disk: the journal (SQLite), the spool and its disk space."""
