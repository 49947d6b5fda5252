"""spaCy's training by a config that names the optimizer, beside the same with thinc's."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from marks import needs

spacy: Any = needs("spacy", "spacy")

import spacy_textcat  # noqa: E402
from spacy.training import Example  # noqa: E402

import fusedstep.thinc  # noqa: E402

OPTIMIZERS = ("fusedstep.AdamW.v1", "Adam.v1")


def pipeline(optimizer: str, **options: Any) -> tuple[Any, Any, list[Any]]:
    """Two pipes that share their layers for tokens, an optimizer by config, and examples."""
    spacy.util.fix_random_seed(0)
    settings = {"@optimizers": optimizer, **options}
    nlp = spacy.blank("en", config={"training": {"optimizer": settings}})
    tokens = {
        "@architectures": "spacy.HashEmbedCNN.v2",
        "width": 16,
        "depth": 1,
        "embed_size": 50,
        "window_size": 1,
        "maxout_pieces": 2,
        "subword_features": True,
        "pretrained_vectors": None,
    }
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 16, "upstream": "*"}
    nlp.add_pipe("tok2vec", config={"model": tokens})
    tagger = {"@architectures": "spacy.Tagger.v2", "tok2vec": listener, "nO": None}
    nlp.add_pipe("tagger", config={"model": tagger})
    classifier = {
        "@architectures": "spacy.TextCatReduce.v1",
        "exclusive_classes": True,
        "tok2vec": listener,
        "use_reduce_first": False,
        "use_reduce_last": False,
        "use_reduce_max": False,
        "use_reduce_mean": True,
        "nO": None,
    }
    nlp.add_pipe("textcat", config={"model": classifier})
    chosen, examples = random.Random(0), []
    for _ in range(60):
        tags = chosen.choices("XY", k=6)
        words = [f"{tag.lower()}{chosen.randrange(20)}" for tag in tags]
        cats = {"A": float(tags.count("X") > 3), "B": float(tags.count("X") <= 3)}
        doc = spacy.tokens.Doc(nlp.vocab, words=words)
        examples.append(Example.from_dict(doc, {"tags": tags, "cats": cats}))
    return nlp, nlp.initialize(lambda: examples), examples


def train(optimizer: str, steps: int = 15, **options: Any) -> tuple[Any, Any, list[Any]]:
    nlp, sgd, examples = pipeline(optimizer, **options)
    found = []
    for t in range(steps):
        losses: dict[str, float] = {}
        batch = examples[t * 8 % 56 :][:8]
        nlp.update(batch, sgd=sgd, losses=losses, annotates=["tagger"])
        sgd.step_schedules()
        found.append([losses["tagger"], losses["textcat"]])
    return nlp, sgd, found


def weights(nlp: Any) -> list[Any]:
    return [
        node.get_param(name)
        for _, pipe in nlp.pipeline
        for node in pipe.model.walk()
        for name in node.param_names
        if node.has_param(name)
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_averages": True, "L2_is_weight_decay": False},
        {"grad_clip": 0.0, "L2": 0.0},
        {
            "learn_rate": {
                "@schedules": "warmup_linear.v1",
                "warmup_steps": 4,
                "total_steps": 20,
                "initial_rate": 0.01,
            }
        },
    ],
    ids=str,
)
def test_losses_are_those_of_thinc(options: dict[str, Any]) -> None:
    runs = [train(name, **options) for name in OPTIMIZERS]
    assert isinstance(runs[0][1], fusedstep.thinc.Optimizer)
    assert type(runs[1][1]).__module__ == "thinc.optimizers"
    np.testing.assert_allclose(runs[0][2], runs[1][2], rtol=1e-3, atol=1e-4)
    assert runs[0][2][-1][0] < runs[0][2][0][0]
    for x, y in zip(weights(runs[0][0]), weights(runs[1][0]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-2, atol=2e-4)
    counts = [sorted(sgd.nr_update.values()) for _, sgd, _ in runs]
    assert counts[0] == counts[1]


def test_saving_with_averages_and_going_on() -> None:
    nlp, sgd, losses = train(OPTIMIZERS[0], use_averages=True)
    before = [w.copy() for w in weights(nlp)]
    with nlp.use_params(sgd.averages):
        averaged = nlp.to_bytes()
    assert all((x == y).all() for x, y in zip(weights(nlp), before, strict=True))
    loaded = spacy.util.load_model_from_config(nlp.config).from_bytes(averaged)
    assert any((x != y).any() for x, y in zip(weights(loaded), before, strict=True))
    assert nlp.resume_training() is sgd
    other = loaded.resume_training()
    assert isinstance(other, fusedstep.thinc.Optimizer)
    assert other is not sgd
    _, _, examples = pipeline(OPTIMIZERS[0])
    more: dict[str, float] = {}
    loaded.update(examples, sgd=other, losses=more)
    assert more["tagger"] < losses[0][0] * 60 / 8
    assert {*other.nr_update.values()} == {1}


def test_the_config_is_saved_with_the_name() -> None:
    nlp, sgd, _ = pipeline(OPTIMIZERS[0])
    text = nlp.config.to_str()
    assert '@optimizers = "fusedstep.AdamW.v1"' in text
    again = spacy.blank("en", config={}).from_config(nlp.config)
    optimizer = again.create_optimizer()
    assert (optimizer.L2, optimizer.grad_clip) == (sgd.L2, sgd.grad_clip)


def test_the_example_trains_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spacy_textcat, "STEPS", 80)
    mine, theirs = (spacy_textcat.run(name) for name in OPTIMIZERS)
    assert mine.score > 0.75
    assert abs(mine.score - theirs.score) <= 0.02
    assert mine.weights.keys() == theirs.weights.keys()
    for name, value in mine.weights.items():
        np.testing.assert_allclose(value, theirs.weights[name], rtol=1e-2, atol=1e-4)
