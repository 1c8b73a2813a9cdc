"""`python -m qsci_plugins` is `qsci`."""

from __future__ import annotations

import sys

from qsci_plugins.cli import main

sys.exit(main())
