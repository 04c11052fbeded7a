"""Files of users and of restores: reading, locks, inotify, durable writes."""
