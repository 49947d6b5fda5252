"""`python -m fusedstep` is the same program as `fusedstep`."""

import sys

from fusedstep.program.main import main

if __name__ == "__main__":
    sys.exit(main())
