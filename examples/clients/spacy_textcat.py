"""A text classifier of spaCy, trained from its config, which names the optimizer.

    [training.optimizer]
    @optimizers = "fusedstep.AdamW.v1"

is all of the change; spacy_textcat.cfg beside this file has the rest. The texts are made up: each
of the two classes prefers other words. spaCy saves the best pipeline, with the averages of its
parameters in their place, and here it is loaded and asked.

    python examples/clients/spacy_textcat.py
"""

from __future__ import annotations

import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import spacy
from spacy.cli.init_config import fill_config
from spacy.cli.train import train
from spacy.tokens import DocBin

CONFIG = Path(__file__).with_suffix(".cfg")

STEPS = 120


def texts(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts, each with its class: two thirds of its words are that class's own."""
    chosen, found = random.Random(seed), []
    words = {name: [f"{name}{k}" for k in range(300)] for name in ("sport", "music")}
    for _ in range(count):
        name = chosen.choice([*words])
        pools = chosen.choices([*words], [2 if own == name else 1 for own in words], k=20)
        found.append((" ".join(chosen.choice(words[pool]) for pool in pools), name))
    return found


def save(path: Path, count: int, seed: int) -> None:
    """Save texts in spaCy's format."""
    nlp, docs = spacy.blank("en"), DocBin()
    for text, name in texts(count, seed):
        doc = nlp.make_doc(text)
        doc.cats = {each: float(each == name) for each in ("sport", "music")}
        docs.add(doc)
    docs.to_disk(path)


class Run(NamedTuple):
    score: float
    """The share of further texts that the saved pipeline puts into their class."""
    weights: dict[str, Any]
    """The parameters of the saved pipeline, by node and name."""


def run(optimizer: str) -> Run:
    """Train with the optimizer of that name, and load what spaCy saved."""
    with TemporaryDirectory() as folder:
        paths = {name: Path(folder, f"{name}.spacy") for name in ("train", "dev")}
        save(paths["train"], 600, seed=1)
        save(paths["dev"], 200, seed=2)
        overrides: dict[str, Any] = {
            "training.optimizer.@optimizers": optimizer,
            "training.max_steps": STEPS,
            **{f"paths.{name}": str(path) for name, path in paths.items()},
        }
        full = Path(folder, "full.cfg")
        fill_config(full, CONFIG)  # with spaCy's defaults, as `spacy init fill-config` does
        train(full, Path(folder, "out"), overrides=overrides)
        nlp = spacy.load(Path(folder, "out", "model-best"))
    right = 0
    further = texts(200, seed=3)
    for text, name in further:
        scores = nlp(text).cats
        right += max(scores, key=scores.__getitem__) == name
    nodes = enumerate(nlp.get_pipe("textcat").model.walk())
    weights = {
        f"{k} {name}": node.get_param(name) for k, node in nodes for name in node.param_names
    }
    return Run(right / len(further), weights)


def main() -> None:
    found = run("fusedstep.AdamW.v1")
    print(f"{found.score:.0%} of further texts are put into their class")


if __name__ == "__main__":
    main()
