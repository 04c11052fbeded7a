"""What /usr/bin/walsyncd runs: python3 -IS knows no other packages than those beside this file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.argv[0] = "walsyncd"

from walsyncd.cli import main  # noqa: E402 - found only now

sys.exit(main())
