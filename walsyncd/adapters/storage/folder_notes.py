"""Reads the JSON that a storage folder keeps beside its objects: metadata, and the descriptions of open uploads.

Others may be able to write to the folder. So the length of a note is limited, and each of its fields is checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from walsyncd.adapters.files.durable_file import reading
from walsyncd.adapters.storage.folder_tree import FolderTree
from walsyncd.errors import CorruptError, MissingError, RefusedError

NOTE_BYTES_MAX = 1 << 16  # a key has 900 bytes, metadata some hundreds
_CHANGED_HINT = "somebody changed what walsyncd wrote: delete the folder that it is in, and the upload begins again"


@dataclass(frozen=True, slots=True)
class UploadNote:
    """The note of an open upload."""

    key: str
    initiated_ms: int
    metadata: Mapping[str, str]


class FolderNotes:
    """The notes below a root folder."""

    def __init__(self, tree: FolderTree, root: Path) -> None:
        self._tree = tree
        self._root = root

    def metadata(self, name: str, etag: str) -> dict[str, str] | None:
        """Return the metadata that walsyncd has kept for an object of this ETag, or None if there is none."""
        try:
            kept = self._read(name)
        except (MissingError, CorruptError, RefusedError):
            return None
        metadata = kept.get("metadata")
        return metadata if kept.get("etag") == etag and _is_metadata(metadata) else None

    def upload(self, name: str) -> UploadNote:
        """Return the description of an open upload.

        Raises MissingError if there is none, CorruptError or RefusedError if walsyncd did not write it.
        """
        match self._read(name):
            case {"key": str(key), "initiated_ms": int(initiated_ms), "metadata": metadata} if _is_metadata(metadata):
                return UploadNote(key, initiated_ms, metadata)
        raise CorruptError(f"read {self._root / name}: it describes no upload", hint=_CHANGED_HINT)

    def _read(self, name: str) -> dict[str, Any]:
        path = self._root / name
        with reading("read", path), self._tree.open(name) as (file, _):
            text = file.read(NOTE_BYTES_MAX + 1)
        try:
            if len(text) <= NOTE_BYTES_MAX:
                return dict(json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            raise CorruptError(f"read {path}: {error}", hint=_CHANGED_HINT) from error
        raise CorruptError(f"read {path}: it is longer than {NOTE_BYTES_MAX} bytes", hint=_CHANGED_HINT)


def _is_metadata(value: object) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
