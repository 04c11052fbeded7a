"""Storage in S3-compatible stores."""
