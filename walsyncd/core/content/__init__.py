"""Page maps: the content of each page of a replica, and how scans and bridges use it."""
