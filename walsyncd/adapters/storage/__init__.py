"""Where replicas are stored: the interface, and one module or folder for each kind of store."""
