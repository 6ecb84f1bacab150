# SPDX-License-Identifier: BSD-3-Clause
"""`python -m trulysparse`."""

import sys

from trulysparse.cli import main

sys.exit(main())
