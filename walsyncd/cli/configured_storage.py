"""Opens the storages of the configuration, since adapters do not know the configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from walsyncd.adapters.storage.interface import Storage
    from walsyncd.config import StorageSettings


FOLDERS_FILE = "storage-folders"  # a file in the state directory; it lists the folders that were used as storage


def storage_from(
    settings: StorageSettings,
    *,
    connections_max: int = 16,
    state_dir: Path | None = None,
    beat: Callable[[], None] = lambda: None,
) -> Storage:
    """Return the storage of ``settings`` without making a request. ``connections_max`` threads can use it at once.

    With ``state_dir`` a storage folder that was used before and is gone counts as away, not as empty. ``beat`` is
    called while a request of several seconds makes progress.
    """
    from walsyncd.adapters.storage.open_storage import open_storage  # noqa: PLC0415  a command is light until it runs

    memory = state_dir / FOLDERS_FILE if state_dir is not None else None
    return open_storage(settings.url, settings.options, connections_max=connections_max, memory=memory, beat=beat)


def answering_storage(settings: StorageSettings, *, state_dir: Path | None = None) -> Storage:
    """Return the storage for a command. Raises UnresponsiveError if it is a folder that does not answer."""
    from walsyncd.cli.bounded import require_answer  # noqa: PLC0415

    if settings.url.startswith("file://"):
        require_answer(Path(unquote(settings.url.removeprefix("file://").removeprefix("localhost"))))
    return storage_from(settings, state_dir=state_dir)
