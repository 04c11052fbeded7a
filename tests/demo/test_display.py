import io
import re

import pytest
from rich.console import Console

from walsyncd.demo.display import Counters, LiveDisplay, PlainDisplay

COUNTERS = Counters(commits=12, objects=3, size=3 << 20, kills=1, stored="20261122T105600Z-3f9c1a2b/…", equal=2)


def _live(out: io.StringIO) -> LiveDisplay:
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    return LiveDisplay(console, lambda: COUNTERS)


def test_elsewhere_a_phase_is_one_line() -> None:
    """The line is printed when the phase has ended: seconds, title, result. A difference is in capitals."""
    out = io.StringIO()
    with PlainDisplay(out) as display:
        display.begin("kill -9")
        assert out.getvalue() == ""
        display.end("it is gone")
        display.begin("restore")
        display.end("1 page", is_good=False)
    lines = out.getvalue().splitlines()
    assert [re.sub(r"^ +\d+\.\d s  ", "", line) for line in lines] == [
        "kill -9: it is gone",
        "restore: DIFFERS  1 page",
    ]


def test_a_terminal_shows_phases_and_counters() -> None:
    """Phases that have ended stay, with their sign. The counters are updated below and disappear at the end."""
    out = io.StringIO()
    with _live(out) as display:
        display.begin("kill -9")
        display._live.refresh()
        assert "kill -9" in out.getvalue()
        display.end("it is gone")
        display.begin("restore")
        display.end("1 page", is_good=False)
        display._live.refresh()
    text = out.getvalue()
    assert "✓" in text
    assert "✗" in text
    assert "it is gone" in text
    for counter in ("12 commits written", "3 objects, 3.0 MiB", "1 kills", "2 comparisons equal"):
        assert counter in text


def test_a_phase_that_fails_stays_visible() -> None:
    """The error is printed after it."""
    out = io.StringIO()
    display = _live(out)
    display.begin("restore")
    with pytest.raises(ValueError, match="no"), display:
        raise ValueError("no")
    assert re.search(r"✗ .*restore", out.getvalue())
