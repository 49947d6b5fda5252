"""`python -m fusedstep` is the same program as `fusedstep`."""

import sys

from fusedstep.cli import main

sys.exit(main())
