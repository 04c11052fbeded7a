"""numpy, imported when it is first used. Most commands check no frame, and numpy is a third of what they would load.

Apart from that, ``np`` behaves as the numpy module does. Each of its attributes is looked up once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["NDArray", "np"]

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    NDArray = None  # annotations are not evaluated

    class _Numpy:
        def __getattr__(self, name: str) -> object:
            import numpy  # noqa: PLC0415 - the point of this module

            value = getattr(numpy, name)
            setattr(self, name, value)
            return value

    np = _Numpy()
