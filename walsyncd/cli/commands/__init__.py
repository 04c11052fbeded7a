"""The commands of walsyncd, one module each."""
