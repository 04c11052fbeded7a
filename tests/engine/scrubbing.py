"""What tests of scrubs share: asking for one, and changing a file in a way that no event and no time shows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tests.engine.running import Place, wait_for


def scrub(place: Place, name: str = "app") -> Mapping[str, Any]:
    """Compare now; what it found."""
    asked = place.ask(op="scrub", names=[name])["databases"]
    done: dict[str, Any] = {}

    def is_over() -> bool:
        done.update(place.ask(op="scrubbed", databases=asked)["done"])
        return bool(done)

    wait_for(is_over)
    return dict(done[name])


def change_behind_its_back(
    place: Place, page: int, content: bytes = b"not what was committed", *, page_size: int = 4096
) -> None:
    """By another name of the file, in another folder, and with its times put back."""
    path, link = place.database(), place.folder / "link.db"
    before = path.stat()
    os.link(path, link)
    with link.open("r+b") as file:
        file.seek(page * page_size - len(content))
        file.write(content)
    os.utime(link, ns=(before.st_atime_ns, before.st_mtime_ns))
    link.unlink()
