"""A writer that is faster than the follower is slowed: a child process holds one read mark of the wal-index."""
