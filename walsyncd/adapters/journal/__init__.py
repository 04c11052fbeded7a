"""walsyncd's own state on disk: the journal (SQLite), the spool and the room that they have."""
