# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.fuzz``: run cases until the time is over or one fails; each is repeated by its number."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from random import SystemRandom

from tests.fuzz.fuzzer import Failure, run_case


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when no case failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on (default: 60)")
    parser.add_argument("--seed", type=int, help="number of the first case (default: a random one)")
    parser.add_argument("--case", type=int, help="run this one case and show its traceback")
    options = parser.parse_args(arguments)
    if options.case is not None:
        seed, end = options.case, 0.0
    else:
        seed = SystemRandom().getrandbits(32) if options.seed is None else options.seed
        end = time.monotonic() + options.seconds
        print(f"fuzzing from case {seed} on for {options.seconds:g} s", flush=True)
    first = seed
    while True:
        try:
            run_case(seed)
        except Failure as failure:
            if options.case is not None:
                traceback.print_exception(failure.__cause__)
            print(failure, file=sys.stderr)
            return 1
        seed += 1
        if time.monotonic() >= end:
            break
    print(f"{seed - first} cases passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
