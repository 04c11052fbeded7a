"""The demo: an application that writes, the daemon killed beside it, and proof that nothing was lost."""
