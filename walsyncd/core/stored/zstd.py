"""The standard library's zstd API (PEP 784). Before Python 3.14 it comes from ``backports.zstd``."""

import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["zstd"]
