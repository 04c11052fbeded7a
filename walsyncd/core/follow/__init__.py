"""The proof: which frames are new, and whether anything between two looks was missed."""
