"""What kernels take of an operation's time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

Clock = Callable[[], float]


def adding_up(spent: dict[str, float], name: str, run: Callable[..., Any], clock: Clock) -> Callable[..., Any]:
    """The same, adding the seconds that it takes to those of its name."""

    def call(*given: Any) -> Any:
        start = clock()
        result = run(*given)
        spent[name] += clock() - start
        return result

    return call


@contextmanager
def kernel_times(runner: Any, clock: Clock) -> Iterator[dict[str, float]]:
    """Seconds by kernel that operations of a `HostRunner` take within it."""
    spent: dict[str, float] = defaultdict(float)
    find = runner.function

    def timed(kernel: str) -> tuple[Any, Any]:
        entry, struct = find(kernel)
        return adding_up(spent, kernel, entry, clock), struct

    with patch.object(runner, "function", timed):
        yield spent
