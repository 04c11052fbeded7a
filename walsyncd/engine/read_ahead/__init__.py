"""WALs are read before SQLite overwrites them, while the follower works on what was read before."""
