"""Keeps only the page numbers of the frames that are followed while a gap is bridged."""

from __future__ import annotations

from collections.abc import Sequence

from walsyncd.core.content.bridge_passes import BridgePasses
from walsyncd.core.follow.follow_state import Stream
from walsyncd.core.sqlite.wal import Frames


class FrameNumbers:
    """Takes frames as a segment builder does, and keeps only the numbers of their pages."""

    def __init__(self, passes: BridgePasses, stream: Stream) -> None:
        self._passes = passes
        self._stream = stream
        self._size = 0

    def add(self, frames: Frames, _seen: Sequence[tuple[int, int]] = ()) -> None:
        """Add verified frames."""
        self._passes.saw_frames(frames.first, frames.page_numbers)
        commits = frames.sizes[frames.sizes != 0]
        self._size = int(commits[-1]) if len(commits) else self._size

    def finish(self) -> tuple[None, Stream]:
        """Note that the last frame added was a commit. Nothing is shipped, and the stream does not advance."""
        self._passes.saw_commit(self._size)
        return None, self._stream

    def drop(self) -> None:
        """Do nothing, because nothing was written that would have to be removed."""
