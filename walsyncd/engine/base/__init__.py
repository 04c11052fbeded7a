"""Full copies of databases, taken while writers write."""
