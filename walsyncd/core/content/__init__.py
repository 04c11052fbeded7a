"""The page map: what each page of a replica is, and what a scan of the file and a bridge make of it."""
