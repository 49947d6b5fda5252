"""Expressions: what can be read, what is refused, and that each remedy works."""

from __future__ import annotations

import pytest

from fusedstep.audits.expression import Call, ExpressionError, Name, parse


@pytest.mark.parametrize(
    "text",
    [
        "torch.optim.AdamW(lr=0.01, fused=True)",
        "optax.chain(optax.clip(1.0), optax.adam(0.001))",
        "keras.optimizers.SGD(momentum=-0.5, name=None)",
        "package.Optimizer(betas=(0.9, 0.999), one=(1,), groups=[1, 2], options={'a': 1})",
        "package.Optimizer(dtype=torch.bfloat16)",
    ],
)
def test_an_expression_is_written_as_it_was_read(text: str) -> None:
    assert str(parse(text)) == text


def test_a_bare_name_is_a_call() -> None:
    assert parse("torch.optim.AdamW") == Call("torch.optim.AdamW")


def test_the_parts_of_an_expression() -> None:
    call = parse("a.b(c.d(1), dtype=e.f, more=[g.h(), {'k': i.j}])")
    assert call.name == "b"
    assert call.paths() == ["a.b", "c.d", "e.f", "g.h", "i.j"]
    assert call.keywords["dtype"] == Name("e.f")
    assert call.with_keywords(lr=0.5).source("params").startswith("a.b(params, c.d(1), dtype=e.f")


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), -0.0, 1e-300])
def test_every_number_can_be_written(value: float) -> None:
    text = Call("a.b", (), {"x": value}).source()
    assert repr(eval(text.removeprefix("a.b(x=").removesuffix(")"))) == repr(value)


ARITHMETIC = {
    "1/1000": 0.001,
    "-1 / 4": -0.25,
    "-(3 - 1)": -2,
    "+2 * 3": 6,
    "10**-3": 0.001,
    "2**10": 1024,
    "1 - 1e-3": 0.999,
    "-(2.0**-3) + 1": 0.875,
    "1024**1": 1024,
}


@pytest.mark.parametrize("text", ARITHMETIC)
def test_numbers_are_calculated(text: str) -> None:
    call = parse(f"a.b(x={text}, betas=({text}, 0.5))")
    assert call.keywords == {"x": ARITHMETIC[text], "betas": (ARITHMETIC[text], 0.5)}
    assert type(call.keywords["x"]) is type(ARITHMETIC[text])
    assert parse(str(call)) == call


REFUSED = {
    "": "is no Python expression",
    "torch.optim.AdamW(": "is no Python expression",
    "AdamW": "does not name an optimizer by the path",
    "AdamW(lr=0.1)": "does not name an optimizer by the path",
    "3": "does not name an optimizer by the path",
    "torch.optim.AdamW(lr=1 // 3)": "'1 // 3' is neither a literal nor a call",
    "torch.optim.AdamW(lr=~1)": "'~1' is neither a literal nor a call",
    "torch.optim.AdamW(lr=1 / 0)": "'1 / 0' has no value: division by zero",
    "torch.optim.AdamW(lr=10.0**400)": "'10.0 ** 400' has no value",
    "torch.optim.AdamW(lr=9**9**9)": "'9 ** 9 ** 9' is no number of a float's range",
    "torch.optim.AdamW(lr=0**-1)": "has no value",
    "torch.optim.AdamW(lr=2**1000 * 2**1000)": "is no number of a float's range",
    "torch.optim.AdamW(lr=1e200 * 1e200)": "is no number of a float's range",
    "torch.optim.AdamW(lr=(-2) ** 0.5)": "is no number of a float's range",
    "torch.optim.AdamW(lr=1 + True)": "'True' is no number",
    "torch.optim.AdamW(lr='a' * 10**9)": "is no number",
    "torch.optim.AdamW(lr=-torch.pi)": "'torch.pi' is no number",
    "torch.optim.AdamW(lr=" + "+".join("1" * 30) + ")": "levels deep",
    "torch.optim.AdamW(lr=[x for x in y])": "is neither a literal nor a call",
    "torch.optim.AdamW(**options)": "unpacked by a star",
    "torch.optim.AdamW(*options)": "unpacked by a star",
    "__import__('os').system('true')": "is no dotted name",
    "(lambda: 0)()": "is no dotted name",
    "a.b(c=...)": "is neither a literal nor a call",
    "a.b(" + "[" * 30 + "]" * 30 + ")": "levels deep",
    "[" * 5000: "is no Python expression",
}


@pytest.mark.parametrize("text", REFUSED)
def test_other_expressions_are_refused(text: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert REFUSED[text] in str(caught.value)


def test_the_remedy_can_be_read() -> None:
    from fusedstep.audits.expression import EXAMPLE

    assert parse(EXAMPLE.split('"')[1]).keywords == {"lr": 0.01, "fused": True}
