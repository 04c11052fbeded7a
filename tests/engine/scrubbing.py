"""What tests of scrubs share: requesting one, and changing a file so that no event and no time shows it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tests.engine.running import Place, wait_for


def scrub(place: Place, name: str = "app") -> Mapping[str, Any]:
    """Scrub now, and return the result."""
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
    """Change the file by another name in another folder, and restore its times."""
    path, link = place.database(), place.folder / "link.db"
    before = path.stat()
    os.link(path, link)
    with link.open("r+b") as file:
        file.seek(page * page_size - len(content))
        file.write(content)
    os.utime(link, ns=(before.st_atime_ns, before.st_mtime_ns))
    link.unlink()
