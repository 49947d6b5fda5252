"""Numbers as text, with as many digits as are known, and their units."""

from __future__ import annotations


def three(value: float) -> str:
    """Three digits, or two decimals: 0.12, 1.23, 12.3, 123."""
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


def factor(ratio: float) -> str:
    """Two digits at least: 123 ×, 12.3 ×, 0.12 ×, 0.0012 ×."""
    return f"{three(ratio) if ratio >= 0.0995 else f'{ratio:#.2g}'} ×"


def percent(share: float) -> str:
    """Two digits at least: 123%, 12%, 1.2%, 0.012%."""
    return f"{share:.0%}" if share >= 0.0995 else f"{100 * share:#.2g}%"


def duration(seconds: float) -> str:
    """Three digits: 1.23 µs, 45.6 ms."""
    units = [("µs", 1e6), ("ms", 1e3), ("s", 1.0)]
    fit = [(unit, seconds * scale) for unit, scale in units if seconds * scale < 999.5]
    unit, value = fit[0] if fit else ("s", seconds)
    return f"{three(value)} {unit}"


def size_of(count: int) -> str:
    """The size of a cache: 48 KiB, 1.25 MiB."""
    return f"{count / 2**20:g} MiB" if count >= 2**20 else f"{count / 2**10:g} KiB"
