"""What walsyncd stores: the names and bodies of its objects."""
