"""Drop-in replacements for torch's optimizers."""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "fusedstep.torch needs torch; `pip install 'fusedstep[torch]'`, or torch's own instructions",
        name="torch",
    ) from error

from fusedstep.torch.optimizers import SGD, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop"]
