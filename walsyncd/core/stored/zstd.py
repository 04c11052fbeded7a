"""The standard library's zstd API, from ``backports.zstd`` before Python 3.14 (PEP 784)."""

import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["zstd"]
