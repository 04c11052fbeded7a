"""The proof: which frames are new, and whether anything was missed between two looks."""
