"""Fused steps for scikit-learn's neural networks.

`patch` has scikit-learn's own MLPClassifier and MLPRegressor step with this package's optimizers.
The classes of these names here do so by themselves, and take further optimizers as their `solver`.
"""

try:
    import sklearn  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "fusedstep.sklearn needs scikit-learn; `pip install 'fusedstep[sklearn]'`",
        name="sklearn",
    ) from error

from fusedstep.sklearn.estimators import MLPClassifier, MLPRegressor
from fusedstep.sklearn.patching import patch

__all__ = ["MLPClassifier", "MLPRegressor", "patch"]
