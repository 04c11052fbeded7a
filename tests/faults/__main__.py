"""``python -m tests.faults``: many runs with a store of their own, a line of JSON for each, exit code 1 if one of them
failed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import traceback
from dataclasses import asdict
from pathlib import Path

from tests.faults.campaign import run
from tests.stores import run_seaweedfs


def main() -> int:
    """Run the requested seeds. A failed run leaves its folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--first", type=int, default=1, metavar="SEED")
    parser.add_argument("--seeds", type=int, default=10, metavar="COUNT")
    parser.add_argument("--faults", type=int, default=25, metavar="COUNT", help="in each run (default: 25)")
    parser.add_argument("--only", action="append", default=[], metavar="FAULT", help="by name; may be repeated")
    given = parser.parse_args()
    top = Path(tempfile.mkdtemp(prefix="walsyncd-faults-"))
    (top / "store").mkdir()
    failed = 0
    with run_seaweedfs(top / "store") as store:
        for seed in range(given.first, given.first + given.seeds):
            folder = top / str(seed)
            folder.mkdir()
            try:
                report = run(seed, folder, store, faults=given.faults, only=frozenset(given.only))
            except Exception:  # noqa: BLE001 - the next seeds are run anyway
                traceback.print_exc()
                print(f"seed {seed} failed: everything is in {folder}", file=sys.stderr)
                failed += 1
                continue
            print(json.dumps(asdict(report)), flush=True)
            shutil.rmtree(folder)
    if not failed:
        shutil.rmtree(top)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
