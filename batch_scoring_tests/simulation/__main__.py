"""Play histories and print how many break a guarantee: `python -m batch_scoring_tests.simulation --help`."""

import argparse
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from time import perf_counter

from batch_scoring_tests.simulation.history import KINDS, Player, play_all
from batch_scoring_tests.simulation.rules import RULES


def main() -> int:
    """Exit code 1 if a history broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m batch_scoring_tests.simulation", description=__doc__)
    parser.add_argument("--histories", type=int, default=1000, help="how many with all rules in force")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--kind", choices=list(KINDS), default="", help="of history; by default all in turn")
    parser.add_argument("--real", action="store_true", help="on real Delta tables in a temporary folder")
    parser.add_argument("--rules", action="store_true", help="then take out one rule after another")
    parser.add_argument("--without", type=int, default=300, help="histories of each kind without a rule")
    parser.add_argument("--show", action="store_true", help="print the first history that breaks a promise")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp()) if options.real else None
    broken = _play(Player(folder), range(options.first, options.first + options.histories), options)
    if folder:
        shutil.rmtree(folder)
    if options.rules:
        _take_out(options.without, [options.kind] if options.kind else list(KINDS))
    return int(broken > 0)


def _play(player: Player, seeds: range, options: argparse.Namespace) -> int:
    began, broken, operations = perf_counter(), 0, 0
    for count, world in enumerate(play_all(player, seeds, options.kind), 1):
        operations += world.operations
        if world.violation:
            broken += 1
            print(f"seed {seeds[count - 1]}: {world.violation}")
            if options.show and broken == 1:
                print("\n".join(world.trace))
        if sys.stderr.isatty() and count % 100 == 0:
            print(f"\r{count} histories, {broken} broken", end="", file=sys.stderr)
    seconds = perf_counter() - began
    print(
        f"all rules in force: {broken} of {len(seeds)} histories break a promise "
        f"({operations} storage operations, {seconds:.0f} s)"
    )
    return broken


def _take_out(count: int, kinds: list[str]) -> None:
    player = Player()
    print(f"\n| rule taken out | broken / {count * len(kinds)} | promises | soonest in, or covered by |")
    print("| --- | --- | --- | --- |")
    for rule in RULES:
        by_kind: Counter[str] = Counter()
        promises: Counter[str] = Counter()
        for kind in kinds:
            for world in play_all(player, range(count), kind, rule.without):
                if world.violation:
                    by_kind[kind] += 1
                    promises[world.violation.split(":")[0]] += 1
        numbers = ", ".join(f"{promise} ({times})" for promise, times in sorted(promises.items()))
        best = ", ".join(f"{kind} {times}/{count}" for kind, times in by_kind.most_common(1)) or rule.covered
        print(f"| {rule.name} | {sum(by_kind.values())} | {numbers} | {best} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
