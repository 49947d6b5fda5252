"""Drop-in replacements for thinc's optimizers, and so for spaCy's.

In a config the name is the whole change::

    [training.optimizer]
    @optimizers = "fusedstep.AdamW.v1"
"""

try:
    import thinc  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "fusedstep.thinc needs thinc; `pip install 'fusedstep[thinc]'`",
        name="thinc",
    ) from error

from fusedstep.thinc.optimizers import *  # noqa: F403  each of them is public
from fusedstep.thinc.optimizers import __all__ as __all__
