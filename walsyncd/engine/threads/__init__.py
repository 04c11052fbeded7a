"""Named threads, and which of them hangs."""
