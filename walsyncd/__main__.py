"""``python -m walsyncd``."""

import sys

from walsyncd.cli import main

sys.exit(main())
