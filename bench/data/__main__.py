"""What is kept of data: `python -m bench.data cache` shows the cache of decoded images and frozen features, or clears it."""

from __future__ import annotations

import argparse

from bench import cache, cli
from bench.paths import cache_dir


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    of_cache = commands.add_parser("cache", help="what the cache holds", description=cache.__doc__)
    of_cache.add_argument("--clear", action="store_true", help="drop every entry; it is made again when needed")
    args = parser.parse_args()
    most = cache.limit()
    if args.clear:
        print(f"{cache_dir()}: {cache.trim(0)} entries dropped")
        return cli.FINE
    print(f"{cache_dir()} (limit {most / cache.GIB:g} GiB, $BENCH_CACHE_LIMIT)")
    kept = cache.entries()
    for kind in cache.KINDS:
        sizes = [size for file, size, _ in kept if file.parent.name == kind]
        print(f"{kind:8} {len(sizes):6} entries {sum(sizes) / cache.GIB:9.3f} GiB")
    return cli.FINE


if __name__ == "__main__":
    cli.run(main)
