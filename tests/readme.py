"""The code blocks of the README and of the manual's pages, so that tests run what users read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
PAGES = {page.name.split("-")[1].split(".")[0]: page for page in (README.parent / "packaging/man").glob("*.7.md")}
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text, and the heading of its section."""

    language: str
    text: str
    section: str

    @property
    def is_script(self) -> bool:
        """Return whether it is a file of its own and not a line for a shell."""
        return self.text.startswith("#!")


def blocks(language: str, page: Path = README) -> list[Block]:
    """Return all blocks of a language on a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        headings = re.findall(r"^## (.*)$", text[: match.start()], re.MULTILINE)
        found.append(Block(match[1], match[2], headings[-1] if headings else ""))
    return [block for block in found if block.language == language]


def script_by_hand() -> str:
    """Return the script that restores without walsyncd."""
    (script,) = [block.text for block in blocks("sh") if block.is_script]
    return script
