"""Steps of `fusedstep.thinc` beside thinc's own, and spaCy's training of a text classifier.

    python bench/thinc_steps.py [update] [train] [--quick] [--out FILE]

`update` times `Model.finish_update`, which walks over the model and steps all parameters, after new
gradients that are not timed. `train` times whole updates of a blank pipeline: forward, backward,
step. Contestants take turns (`fusedstep.benchmarks.turns`), and a figure is the median of the
turns. Before that both make the same update of every parameter, up to the rounding of float32.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import spacy
import thinc.api as thinc
from spacy.training import Example
from thinc.optimizers import Optimizer
from topics import described, headed, parsed, parser_of, with_out, write

import fusedstep.thinc
from fusedstep import get_num_threads
from fusedstep.benchmarks.contestants.contestant import Entry
from fusedstep.benchmarks.turns import take_turns

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "thinc": thinc.Adam,
    "fusedstep": fusedstep.thinc.AdamW,
    "calls alone": lambda *args, **kwargs: lambda key, p, g: (p, g),
}
"""Each contestant's optimizer. The last one steps nothing: what it takes is thinc's own walk."""

NETWORKS = {"2 × 128": (128, 2), "40 × 32": (32, 40)}
"""The width and the number of layers of the networks."""

TOKENS = {
    "@architectures": "spacy.HashEmbedCNN.v2",
    "width": 64,
    "depth": 2,
    "embed_size": 2000,
    "window_size": 1,
    "maxout_pieces": 3,
    "subword_features": True,
    "pretrained_vectors": None,
}

CLASSIFIERS: dict[str, dict[str, Any]] = {
    "bag of words": {
        "@architectures": "spacy.TextCatBOW.v3",
        "exclusive_classes": True,
        "ngram_size": 1,
        "no_output_layer": False,
        "length": 262144,
    },
    "convolutions": {
        "@architectures": "spacy.TextCatReduce.v1",
        "exclusive_classes": True,
        "use_reduce_first": False,
        "use_reduce_last": False,
        "use_reduce_max": False,
        "use_reduce_mean": True,
        "tok2vec": TOKENS,
    },
}
"""Architectures of text classifiers, as spaCy's configs name them."""

SETTINGS: list[dict[str, Any]] = [
    {"use_averages": True, "L2": 0.01},
    {"use_averages": False, "L2": 0.01},
]


class Row(NamedTuple):
    """A figure of the tables."""

    case: str
    contestant: str
    seconds: float


# ---- finish_update ----


def network(width: int, depth: int) -> Any:
    """A chain of layers whose gradients are there."""
    thinc.fix_random_seed(0)
    model = thinc.chain(*[thinc.Relu(width, width) for _ in range(depth)])
    x = np.random.default_rng(0).standard_normal((64, width)).astype(np.float32)
    model.initialize(x, x)
    y, backprop = model.begin_update(x)
    backprop(y * np.float32(0.01))
    return model


def each(model: Any) -> Iterator[tuple[Any, Any]]:
    """Each parameter of a model, and its gradient."""
    for node in model.walk():
        for name in node.param_names:
            yield node.get_param(name), node.get_grad(name)


def updating(make: Callable[..., Any], size: tuple[int, int], settings: dict[str, Any]) -> Entry:
    """The `finish_update` of a model of its own, before which the gradients are filled."""
    model, optimizer = network(*size), make(0.001, **settings)
    pairs = [(g, g.copy()) for _, g in each(model)]

    def fill() -> None:
        for g, values in pairs:
            g[...] = values

    return Entry(partial(model.finish_update, optimizer), list, get_num_threads(), fill)


def update(seconds: float) -> Iterator[list[Row]]:
    """`finish_update` of a chain of layers."""
    for settings in SETTINGS:
        for name, size in NETWORKS.items():
            check(size, settings)
            entries = {
                contestant: updating(make, size, settings)
                for contestant, make in OPTIMIZERS.items()
            }
            case = f"{name}, {'averages' if settings['use_averages'] else 'no averages'}"
            yield [*rows(case, entries, seconds)]


def check(size: tuple[int, int], settings: dict[str, Any]) -> None:
    """Refuse to time what does not make the same update."""
    models = []
    for name in ("thinc", "fusedstep"):
        model = network(*size)
        model.finish_update(OPTIMIZERS[name](0.001, **settings))
        models.append([p.copy() for p, _ in each(model)])
    for p, q in zip(*models, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-4, atol=1e-6)


# ---- training ----


def texts(count: int) -> list[tuple[str, dict[str, Any]]]:
    """Texts of two classes, whose words are mostly others."""
    chosen, found = random.Random(0), []
    words = [f"w{k}" for k in range(2000)]
    for _ in range(count):
        first = chosen.random() < 0.5
        own = words[:1200] if first else words[800:]
        text = " ".join(chosen.choices(own, k=chosen.randint(8, 30)))
        found.append((text, {"cats": {"A": float(first), "B": float(not first)}}))
    return found


class Training:
    """The updates of a pipeline of its own."""

    def __init__(self, classifier: str, optimizer: str) -> None:
        spacy.util.fix_random_seed(0)
        self.nlp = spacy.blank("en", config={"training": {"optimizer": {"@optimizers": optimizer}}})
        self.nlp.add_pipe("textcat", config={"model": CLASSIFIERS[classifier]})
        examples = [Example.from_dict(self.nlp.make_doc(text), of) for text, of in texts(320)]
        self.optimizer: Optimizer = self.nlp.initialize(lambda: examples)
        self.batches = cycle([examples[at : at + 16] for at in range(0, 320, 16)])
        self.losses: list[float] = []

    def step(self) -> None:
        losses: dict[str, float] = {}
        self.nlp.update(next(self.batches), sgd=self.optimizer, losses=losses)
        self.optimizer.step_schedules()
        self.losses.append(losses["textcat"])


def train(seconds: float) -> Iterator[list[Row]]:
    """Updates of a text classifier, forward and backward included."""
    for name in CLASSIFIERS:
        trainings = {
            "thinc": Training(name, "Adam.v1"),
            "fusedstep": Training(name, "fusedstep.AdamW.v1"),
        }
        for training in trainings.values():
            for _ in range(20):
                training.step()
        losses = [np.array(training.losses) for training in trainings.values()]
        np.testing.assert_allclose(losses[0], losses[1], atol=1e-4)
        entries = {
            contestant: Entry(training.step, list, get_num_threads())
            for contestant, training in trainings.items()
        }
        yield [*rows(name, entries, seconds)]


# ---- tables ----


def rows(case: str, entries: dict[str, Entry], seconds: float) -> Iterator[Row]:
    for name, timing in take_turns(entries, seconds).items():
        yield Row(case, name, median(timing.turns))


TOPICS = {"update": update, "train": train}


def main() -> None:
    parser = with_out(parser_of(__doc__, TOPICS))
    parser.add_argument("--quick", action="store_true", help="a second for each row")
    options = parsed(parser, TOPICS)
    here = described()
    found: list[Row] = []
    for topic in headed(options.what, TOPICS):
        print("| case | µs (times as long as fusedstep) |\n| --- | --- |")
        for group in topic(1.0 if options.quick else 8.0):
            ours = next(row.seconds for row in group if row.contestant == "fusedstep")
            figures = [
                f"{row.contestant} {row.seconds * 1e6:,.1f} ({row.seconds / ours:.2f})"
                for row in group
            ]
            print(f"| {group[0].case} | {', '.join(figures)} |", flush=True)
            found += group
    write(options.out, here, found)


if __name__ == "__main__":
    main()
