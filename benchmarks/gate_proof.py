"""How often the gate is wrong: runs of identical code, and of code with a planted slow-down, on a machine under load.

    python benchmarks/gate_proof.py --identical 200 --planted 100     # hours; what was run is kept, and gone on with
    python benchmarks/gate_proof.py --simulate                        # the decisions alone, on drawn noise: a minute

A second process loads the machine at random meanwhile, and with `--lanes 2` each of two runs, on a core of its own, is
load to the other. The slow-down is planted in the process of head, by a wrapper
round one stage that spends 10 %, or 5 %, of its processor time once more. Writes benchmarks/results/gate_proof.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fieldshot.bench.board import board_facts
from fieldshot.bench.comparing import CONTROL_THRESHOLD
from fieldshot.bench.deciding import SLOWER, Verdict, decide
from fieldshot.bench.gate import CONTROL, gate_sides
from fieldshot.bench.running import chosen
from fieldshot.bench.sides import prepare
from fieldshot.bench.suites import PER_PROCESS, stages_of
from fieldshot.bench.thresholds import read_thresholds

OUT = Path(__file__).resolve().parent / "results" / "gate_proof.json"

# Runs in the process of head instead of `main()`. Reading the clock takes time too: it is part of the planted time, and
# where a call is as quick as some readings, every tenth or twentieth is made twice instead.
PLANT = """
import time
from fieldshot_probe import stages
make = stages.STAGES[{stage!r}]
def planted(bench):
    stage = make(bench)
    reading_ns = min(-(time.thread_time_ns() - time.thread_time_ns()) for _ in range(1000))
    due = 0.0
    def twice(argument):
        nonlocal due
        due += {share}
        if due >= 1:
            due -= 1
            stage.step(argument)
        return stage.step(argument)
    def step(argument):
        start = time.thread_time_ns()
        result = stage.step(argument)
        done = time.thread_time_ns()
        end = done + int({share} * (done - start - reading_ns)) - 2 * reading_ns
        while time.thread_time_ns() < end:
            pass
        return result
    took_ns = []
    for _ in range(9):
        argument = stage.prepare()
        start = time.thread_time_ns()
        stage.step(argument)
        took_ns.append(time.thread_time_ns() - start)
    return stage._replace(step=twice if sorted(took_ns)[4] < 100_000 else step)
stages.STAGES[{stage!r}] = planted
main()
"""

# Works and rests in turn, for up to two seconds each.
LOAD = """
import random, time
while True:
    end = time.monotonic() + random.uniform(0, 2)
    block = bytearray(random.choice([10_000, 1_000_000, 20_000_000]))
    while time.monotonic() < end:
        block[::64] = bytes(len(block[::64]))
    time.sleep(random.uniform(0, 2))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--identical", type=int, default=0, help="gate runs of identical code")
    parser.add_argument("--planted", type=int, default=0, help="gate runs of each slow-down")
    parser.add_argument("--shares", default="0.1,0.05", help="slow-downs that are planted")
    parser.add_argument("--suite", default="quick")
    parser.add_argument("--budget-s", type=float, default=170.0)
    parser.add_argument("--lanes", type=int, default=1, help="runs at a time, each on a core of its own")
    parser.add_argument("--simulate", action="store_true", help="draw the noise instead of measuring")
    parser.add_argument(
        "--noise", type=float, default=0.025, help="of a simulated round: standard deviation of the log"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    kinds = {0.0: arguments.identical} | {float(share): arguments.planted for share in arguments.shares.split(",")}
    if arguments.simulate:
        for share, runs in kinds.items():
            print(told(share, simulated(share, runs or 100, arguments.noise, stages_of(arguments.suite))))
        return
    settings = {"suite": arguments.suite, "budget_s": arguments.budget_s}
    kept = json.loads(arguments.out.read_text("utf-8")) if arguments.out.exists() else {**settings, "runs": []}
    if {name: kept[name] for name in settings} != settings:
        parser.error(f"{arguments.out} must be gone on with as it was begun (--suite {kept['suite']})")
    wanting = in_turn(kinds, kept["runs"])
    turn = threading.Lock()

    def lane(core: int) -> None:
        os.sched_setaffinity(0, {core})  # of this thread, and so of what it starts
        while True:
            with turn:
                share = next(wanting, None)
            if share is None:
                return
            run = one_run(share, arguments.suite, arguments.budget_s)
            with turn:
                kept["board"] = board_facts()
                kept["runs"].append(run)
                kept["summary"] = [told(of, [run for run in kept["runs"] if run["share"] == of]) for of in kinds]
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                arguments.out.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
                print(*kept["summary"], sep="\n", flush=True)

    cores = sorted(os.sched_getaffinity(0))[-arguments.lanes :]
    with loaded(), ThreadPoolExecutor(len(cores)) as pool:
        list(pool.map(lane, cores))


def in_turn(kinds: dict[float, int], done: Sequence[dict]) -> Iterator[float]:
    """Kinds of runs that are wanting, each in proportion: whenever it is stopped, there are some of all."""
    had = Counter(run["share"] for run in done)
    while True:
        wanting = {share: had[share] / runs for share, runs in kinds.items() if had[share] < runs}
        if not wanting:
            return
        share = min(wanting, key=wanting.__getitem__)
        had[share] += 1
        yield share


def one_run(share: float, suite: str, budget_s: float) -> dict:
    names = [name for name in stages_of(suite) if name not in PER_PROCESS]
    stage = random.choice(names) if share else ""
    with tempfile.TemporaryDirectory() as folder:
        base, head = (prepare(None, Path(folder, name)) for name in ("base", "head"))
        if share:
            head = head._replace(entry=PLANT.format(stage=stage, share=share))
        found = gate_sides(base, head, chosen(None, Path(folder)), suite=suite, budget_s=budget_s)
    return {
        "share": share,
        "stage": stage,
        "load": os.getloadavg()[0],
        "took_s": round(found.took_s, 1),
        "notes": found.notes,
        "verdicts": {of.name: rounded(of) for of in found.verdicts},
    }


def rounded(of: Verdict) -> list:
    return [of.verdict, round(of.ratio, 4), round(of.low, 4), round(of.high, 4), of.rounds]


def simulated(share: float, runs: int, noise: float, names: Sequence[str]) -> list[dict]:
    """Runs whose rounds are drawn: Student's t with four degrees of freedom, since disturbances come in bursts."""
    drawn = np.random.default_rng(0)
    thresholds = {**read_thresholds(names), CONTROL: CONTROL_THRESHOLD}
    timed = [name for name in names if name not in PER_PROCESS]
    found = []
    for number in range(runs):
        stage = timed[number % len(timed)] if share else ""

        def measure(rounds: int, still: Sequence[str], stage: str = stage) -> dict[str, float] | None:
            if rounds > 20:  # about what the time allows
                return None
            draws = noise / math.sqrt(2) * drawn.standard_t(4, len(still))
            planted = [math.log1p(share) * (name == stage) for name in still]
            return dict(zip(still, draws + planted, strict=True))

        verdicts = decide(measure, thresholds, seed=number)
        found.append(
            {"share": share, "stage": stage, "took_s": 0.0, "verdicts": {of.name: rounded(of) for of in verdicts}}
        )
    return found


def told(share: float, runs: Sequence[dict]) -> str:
    """Alarms of runs: of the stage that was slowed down, and of others, which are false."""
    false = sum(any(of[0] == SLOWER and name != run["stage"] for name, of in run["verdicts"].items()) for run in runs)
    kinds = Counter(of[0] for run in runs for name, of in run["verdicts"].items() if name != run["stage"])
    others = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    took = sum(run["took_s"] for run in runs) / max(len(runs), 1)
    text = f"{100 * share:.0f} % planted: {len(runs)} runs of {took:.0f} s; false alarms in {false}"
    if share:
        found = Counter(run["verdicts"].get(run["stage"], ["not measured"])[0] for run in runs)
        text += f"; the stage itself: {', '.join(f'{count} {kind}' for kind, count in found.most_common())}"
    return f"{text}; stages left alone: {others or 'none'}"


@contextmanager
def loaded() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", LOAD])
    try:
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
