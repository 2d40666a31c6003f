"""`python -m mcpfast`."""

import sys

from mcpfast.cli import main

sys.exit(main())
