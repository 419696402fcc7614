# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.fuzz``: run cases until the time is over or one fails; each is repeated by its number."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from random import SystemRandom

from tests.fuzz.fuzzer import Failure, run_case

#: Seconds after which a case is taken for one that never ends.
MOST_SECONDS = 60


def _too_long(*signal_and_frame: object) -> None:
    raise TimeoutError(f"no end within {MOST_SECONDS} s")


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
    alarmed = signal.getsignal(signal.SIGALRM) is _too_long  # not in a test, which has a limit of its own
    while True:
        if alarmed:
            signal.alarm(MOST_SECONDS)
        try:
            run_case(seed)
        except Failure as failure:
            if options.case is not None:
                traceback.print_exception(failure.__cause__)
            print(failure, file=sys.stderr)
            return 1
        finally:
            if alarmed:
                signal.alarm(0)
        seed += 1
        if time.monotonic() >= end:
            break
    print(f"{seed - first} cases passed")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, _too_long)
    sys.exit(main())
