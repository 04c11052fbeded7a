"""Databases with a rollback journal: the pages that differ from the page map at a committed moment are shipped."""
