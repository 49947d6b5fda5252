"""Random runs in torch that go over to NumPy and back in checkpoints, and that are repeated.

    python tests/helpers/random_runs.py --seeds 0:2000

Each seed makes an optimizer of `fusedstep.torch`, with random options, formats, layouts and groups,
and steps it. Its checkpoint is loaded by `fusedstep`'s class over tensors of the same layout, whose
checkpoint is loaded by another of torch's. The numbers must be the same in all three, and so must
they be after more steps of each. Some steps of a fourth are recorded, and repeated in NumPy.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch

import fusedstep as fs
import fusedstep.torch

KINDS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.5}],
    "Adagrad": [{}, {"initial_accumulator_value": 0.1}],
    "RMSprop": [{}, {"momentum": 0.5}, {"centered": True}],
    "Adam": [{}, {"amsgrad": True}, {"weight_decay": 0.1}],
    "AdamW": [{}, {"amsgrad": True}],
    **{name: [{}] for name in ("NAdam", "RAdam", "Adamax", "Lion", "Adan")},
}

SHAPES: list[tuple[int, ...]] = [
    *((), (0,), (1,), (3,), (257,), (5, 4), (40, 120), (2, 3, 4, 5), (17, 0), (1, 5000), (33, 129))
]

DTYPES = 3 * [torch.float32] + 2 * [torch.bfloat16] + [torch.float16, torch.float64]


class Run:
    """One random optimizer, and how it is made."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random = Random(seed)
        torch.manual_seed(seed)
        self.name = random.choice([*KINDS])
        self.dtype = random.choice(DTYPES)
        self.options = self._options(dict(random.choice(KINDS[self.name])))
        self.params = [self._parameter() for _ in range(random.randint(1, 4))]
        self.grouped = len(self.params) > 1 and random.random() < 0.5

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options of the kind, and others at random."""
        random = self.random
        options["lr"] = random.choice([0.1, 0.01])
        if self.dtype is torch.bfloat16:
            options["master"] = random.choice(["split16", "split8", "float32", False])
        if self.dtype is not torch.float64 and not (
            self.name == "Adagrad" or "centered" in options
        ):
            low = ["float32", "bfloat16"] + ["8bit"] * ("amsgrad" not in options)
            options["state_dtype"] = random.choice(low)
        if random.random() < 0.2:
            options["ema"] = 0.9
        return options

    def _parameter(self) -> Any:
        shape = self.random.choice(SHAPES)
        p = torch.randn(shape)
        layout = self.random.randrange(3)
        if layout == 1 and len(shape) == 2:
            p = torch.randn(shape[::-1]).t()
        elif layout == 1 and len(shape) == 4:
            p = p.contiguous(memory_format=torch.channels_last)
        elif layout == 2 and len(shape) == 1:
            p = torch.randn(2 * shape[0])[::2]
        made = torch.empty_strided(p.shape, p.stride(), dtype=self.dtype)
        return torch.nn.Parameter(made.copy_(p))

    def like(self) -> list[Any]:
        """Parameters of the same layout, with other values."""
        empty = (
            torch.empty_strided(p.shape, p.stride(), dtype=p.dtype).fill_(7) for p in self.params
        )
        return [*map(torch.nn.Parameter, empty)]

    def groups(self, params: Sequence[Any]) -> Any:
        if not self.grouped:
            return [*params]
        return [{"params": [params[0]], "weight_decay": 0.05}, {"params": [*params[1:]]}]

    @property
    def kept(self) -> dict[str, Any]:
        """The options that are an optimizer's own affair, or decide which state it has."""
        names = ("master", "state_dtype", "ema")
        return {name: value for name, value in self.options.items() if name in names}

    def gradients(self, steps: int, random: Random) -> list[list[Any]]:
        """Gradients of some steps, of which each leaves some parameters out."""
        return [
            [
                torch.randn(p.shape).to(p.dtype) if random.random() < 0.85 else None
                for p in self.params
            ]
            for _ in range(steps)
        ]


def step(opt: Any, params: Sequence[Any], gradients: Sequence[Sequence[Any]]) -> None:
    for own in gradients:
        for p, g in zip(params, own, strict=True):
            p.grad = g
        opt.step()


def goes_over(run: Run, folder: Path) -> bool:
    """Whether the run has the same numbers in NumPy, and in torch again, and goes on so."""
    opt = getattr(fusedstep.torch, run.name)(run.groups(run.params), **run.options)
    step(opt, run.params, run.gradients(run.random.randint(1, 4), run.random))
    begun = all(opt.state.get(p, {}).get("step", 0) for p in run.params)
    digest = fs.save(folder / "torch", opt)

    arrays = [p.detach() for p in run.like()]
    kind = getattr(fs if run.name in fs.__all__ else fs.rules, run.name)
    ours = kind(run.groups(arrays), **run.kept)
    fs.load(folder / "torch", ours, params=arrays)
    found = [fs.save(folder / "ours", ours, params=arrays)]

    params = run.like()
    again = getattr(fusedstep.torch, run.name)(run.groups(params), **run.kept)
    fs.load(folder / "ours", again)
    found.append(again.digest())
    # torch has no state before a step, nor does it count those of SGD.
    comparable = begun and run.name != "SGD"
    same = found == [digest, digest] or not comparable
    same &= all(map(torch.equal, params, run.params)) and all(map(torch.equal, arrays, run.params))
    if run.name == "NAdam":  # whose product is torch's, and ours exact
        return same
    more = run.gradients(2, run.random)
    step(opt, run.params, more)
    step(again, params, more)
    for own in more:
        ours.step([own[:1], own[1:]] if run.grouped else own)
    same &= all(map(torch.equal, params, run.params)) and all(map(torch.equal, arrays, run.params))
    return same and (not comparable or again.digest() == opt.digest())


def is_repeated(run: Run, folder: Path) -> bool:
    """Whether a record of the run's steps comes out the same."""
    random, options = run.random, dict(run.options)
    if random.random() < 0.3:
        options |= {
            "max_norm": random.choice([0.5, 10.0]),
            "clip": random.choice(["global", "tensor"]),
        }
    if random.random() < 0.3:
        options |= {"max_value": 0.3, "nonfinite": "skip"}
    if random.random() < 0.2:
        options |= {"rounding": "stochastic", "seed": run.seed}
    params = run.like()
    opt = getattr(fusedstep.torch, run.name)(run.groups(params), **options)
    step(opt, params, run.gradients(random.randrange(2), random))
    steps = random.randint(1, 4)
    with fs.Recorder(opt, folder / "record", gradients=True):
        for own in run.gradients(steps, random):
            if random.random() < 0.1 and own[0] is not None:
                own[0].fill_(torch.nan)
            step(opt, params, [own])
            opt.param_groups[0]["lr"] *= random.choice([0.5, 1.0])
    return fs.replay(folder / "record", backend=random.choice(["numpy", "auto"])) == (steps, None)


def main(seeds: Sequence[int]) -> int:
    done: Counter[str] = Counter()
    failed = []
    for seed in seeds:
        for check in (goes_over, is_repeated):
            with TemporaryDirectory() as folder:
                try:
                    found = check(Run(seed), Path(folder))
                except Exception as error:
                    found = False
                    print(f"seed {seed}: {type(error).__name__}: {error}", file=sys.stderr)
            done[check.__name__] += 1
            if not found:
                failed.append((check.__name__, seed))
    print(f"{done['goes_over']:,} runs went over, {done['is_repeated']:,} were repeated")
    print(f"{len(failed)} differ {failed or ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", default="0:1000", help="the first, and the one past the last")
    first, _, last = parser.parse_args().seeds.partition(":")
    sys.exit(main(range(int(first), int(last))))
