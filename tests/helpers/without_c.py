"""A pytest plugin that hides the C engine: `PYTHONPATH=tests pytest -p without_engine`."""

import sys

sys.modules["fusedstep._engine"] = None  # type: ignore[assignment]
