"""The demo: an application that writes, a daemon that is killed meanwhile, and proof that nothing was lost."""
