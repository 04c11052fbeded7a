"""What each page of a replica is, compared with the database file: page maps, scans, bridges and scrubs."""
