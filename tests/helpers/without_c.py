"""A pytest plugin that hides the C extension: `PYTHONPATH=tests/helpers pytest -p without_c`."""

import sys

sys.modules["fusedstep._engine"] = None  # type: ignore[assignment]
