"""The content of each page of a replica, compared with the database file: page maps, scans, bridges and scrubs."""
