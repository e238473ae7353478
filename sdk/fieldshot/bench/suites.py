"""Which benchmarks there are, by suite, and how long each is measured at a time."""

from __future__ import annotations

from collections.abc import Mapping

from fieldshot.bench.probe.stages import STAGES, UNTIMED
from fieldshot.errors import OptionError

__all__ = ["PER_PROCESS", "STAGES", "SUITES", "UNTOLD", "plan", "stages_of"]

# Measured once in the life of a process: the time to its first recognition, and the memory that it holds then, on the
# CPU and on a CUDA device.
PER_PROCESS = {"cold": "ms", "memory": "MB", "device-memory": "MB"}

UNTOLD = "not told by this system"  # why one of these is absent

SUITES = {
    "quick": ["decode", "preprocess", "network", "fit-5way-5shot", "predict", "recognize"],
    "default": [
        *("decode", "preprocess", "network", "fit-5way-5shot", "partial_fit", "predict"),
        *("recognize", "enroll", "cold", "memory"),
    ],
    "full": [*STAGES, *PER_PROCESS],
}

SAMPLE_NS = 500_000  # a sample has as many calls as take that long: reading the clock must cost next to nothing
# Samples in a row before the other side has its turn: a machine's speed wanders by 5 to 10 % within 20 ms, and with
# turns of 12 ms, a third as many, the ratios of identical sides scattered twice as much.
BLOCK_NS = 4_000_000
FEWEST_TURNS, TURNS = 6, 18  # blocks in each process: few where one takes long
TURNS_NS = 150_000_000
WARM_NS = 4_000_000  # what is quicker runs once unmeasured first: the other side has just had the caches


def stages_of(suite: str) -> list[str]:
    """Benchmarks of a suite, or of a list of names between commas.

    Raises
    ------
    OptionError
        If there is no such suite or benchmark.
    """
    names = SUITES.get(suite) or [name.strip() for name in suite.split(",")]
    known = SUITES["full"]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise OptionError(
            f"suite must be one of {', '.join(SUITES)} or names of benchmarks (got {unknown[0]!r})",
            hint=f"benchmarks are {', '.join(known)}",
        )
    return list(dict.fromkeys(names))


def plan(call_ns: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Calls of a sample, samples of a block and turns, for calls that take so long: the same for all sides."""
    plans = {}
    for name, took_ns in call_ns.items():
        took_ns = max(took_ns, 1)
        calls = 1 if name in UNTIMED else max(1, SAMPLE_NS // took_ns)
        samples = max(1, min(BLOCK_NS // (calls * took_ns), 40))
        turns = max(FEWEST_TURNS, min(TURNS_NS // (samples * calls * took_ns), TURNS))
        plans[name] = {"calls": calls, "samples": samples, "warm": int(took_ns < WARM_NS), "turns": turns}
    return plans
