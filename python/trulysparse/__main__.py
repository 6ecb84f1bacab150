# SPDX-License-Identifier: BSD-3-Clause
import sys

from trulysparse.cli import main

sys.exit(main())
