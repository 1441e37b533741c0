"""``python -m d2nwg VERB``."""

import sys

from d2nwg.cli import main

sys.exit(main())
