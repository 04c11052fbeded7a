"""Databases with a rollback journal: what differs from the page map at a committed moment is shipped."""
