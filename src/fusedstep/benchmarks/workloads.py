"""The parameters that are stepped: one tensor of any size, thousands of small ones, networks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import NamedTuple, TypeAlias

Shape: TypeAlias = tuple[int, ...]


class Workload(NamedTuple):
    """A list of parameters."""

    name: str
    shapes: tuple[Shape, ...]

    @property
    def tensors(self) -> int:
        return len(self.shapes)

    @property
    def elements(self) -> int:
        """Number of elements, of all tensors together."""
        return sum(prod(shape) for shape in self.shapes)


def equal(count: int, n: int) -> Workload:
    """`count` tensors of n elements each."""
    return Workload(f"{count:,} × {n:,}", ((n,),) * count)


def perceptron(*layers: int) -> Iterator[Shape]:
    """Weights and biases of a multi-layer perceptron, from the widths of its layers."""
    for n, m in pairwise(layers):
        yield from [(n, m), (m,)]


def resnet50() -> Iterator[Shape]:
    """ResNet-50: He, Zhang, Ren, Sun (2016), "Deep Residual Learning for Image Recognition".

    Table 1's column of 50 layers: a convolution of 7×7, four stages of 3, 4, 6 and 3 bottlenecks
    of three convolutions (1×1, 3×3, 1×1), of which the first of each stage projects its input
    by a fourth, and a linear layer of 1,000 classes. A batch norm, weight and bias, follows each
    convolution, which has no bias of its own.
    """

    def convolution(outputs: int, inputs: int, side: int) -> Iterator[Shape]:
        yield from [(outputs, inputs, side, side), (outputs,), (outputs,)]

    yield from convolution(64, 3, 7)
    inputs = 64
    for width, bottlenecks in [(64, 3), (128, 4), (256, 6), (512, 3)]:
        outputs = 4 * width
        for k in range(bottlenecks):
            yield from convolution(width, inputs, 1)
            yield from convolution(width, width, 3)
            yield from convolution(outputs, width, 1)
            if k == 0:
                yield from convolution(outputs, inputs, 1)
            inputs = outputs
    yield from [(1000, inputs), (1000,)]


def gpt2_small() -> Iterator[Shape]:
    """GPT-2 small: Radford et al. (2019), "Language Models are Unsupervised Multitask Learners".

    Embeddings of 50,257 tokens and 1,024 positions into 768 dimensions, 12 blocks of attention
    and a perceptron four times as wide, each with a layer norm before it, and a last layer norm.
    The output layer is the tokens' embedding again.
    """
    width = 768
    norm = [(width,), (width,)]
    yield from [(50257, width), (1024, width)]
    for _ in range(12):
        yield from norm
        yield from [(width, 3 * width), (3 * width,), (width, width), (width,)]
        yield from norm
        yield from [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    yield from norm


SINGLE = [equal(1, n) for n in (100, 1_000, 10_000, 100_000, 1_000_000, 16_000_000, 100_000_000)]
MANY = [equal(10_000, 100), equal(1_000, 1_000)]
NETWORKS = [
    Workload("MLP", tuple(perceptron(784, 256, 10))),
    Workload("ResNet-50", tuple(resnet50())),
    Workload("GPT-2 small", tuple(gpt2_small())),
]

WORKLOADS = [*SINGLE, *MANY, *NETWORKS]
