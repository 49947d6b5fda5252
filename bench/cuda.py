"""Start on_cuda.py, which says what it does: `python bench/cuda.py --all`.

NVIDIA's package is called like this file. Where this folder comes first in the search for modules,
as for `pytest bench`, whoever imports that package must not find this in its place.
"""

import runpy
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent

OTHERS = [each for each in sys.path if Path(each or ".").resolve() != HERE]
"""The folders in which modules are looked for, without this one."""

if __name__ == "__main__":
    sys.path[:] = OTHERS
    runpy.run_path(str(HERE / "on_cuda.py"), run_name="__main__")
else:
    spec = PathFinder.find_spec(__name__, OTHERS)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {__name__!r}", name=__name__)
    sys.modules[__name__] = module_from_spec(spec)
