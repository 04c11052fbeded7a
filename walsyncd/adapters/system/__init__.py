"""What runs and watches walsyncd: control socket, service manager, metrics port, allocator."""
