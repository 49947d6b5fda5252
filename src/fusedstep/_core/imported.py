"""Calls that wait for a module: made at once if it is loaded, else when somebody imports it.

Nothing is imported on its behalf. While something waits, a finder stands first among those that
`import` asks. It answers for the awaited modules alone, by what the other finders answer, and
leaves when none is awaited any more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from threading import RLock
from types import ModuleType
from typing import Any

_waiting: dict[str, list[Callable[[Any], None]]] = {}
_lock = RLock()


def when_imported(name: str, call: Callable[[Any], None]) -> None:
    """Call `call` with the module of that name, now or when it has been imported."""
    with _lock:
        _waiting.setdefault(name, []).append(call)
        if FINDER not in sys.meta_path:
            sys.meta_path.insert(0, FINDER)
    if sys.modules.get(name) is not None:  # perhaps only now, by another thread
        _wake(import_module(name))  # which waits until the module is loaded in full


def _wake(module: ModuleType) -> None:
    """Make the calls that wait for a module."""
    with _lock:
        calls = _waiting.pop(module.__name__, [])
        if not _waiting and FINDER in sys.meta_path:
            sys.meta_path.remove(FINDER)
    for call in calls:
        call(module)


class Finder(MetaPathFinder):
    """The finder that puts `Waking` in the place of the loaders of awaited modules."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _waiting:
            return None
        for finder in [each for each in sys.meta_path if each is not self]:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find and find(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = Waking(spec.loader)
                return spec
        return None


FINDER = Finder()


class Waking(Loader):
    """A module's loader, and then the calls that wait for the module."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module finds its own loader in its place while it runs, and ever after.
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _wake(module)
