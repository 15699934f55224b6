"""Objects that own something: there is one of each."""

from __future__ import annotations

from typing import NoReturn


class Single:
    """TypeError for who copies or pickles it: two of them would release the same things."""

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__}: it cannot be copied or pickled")
