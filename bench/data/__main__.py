"""Datasets: what each needs, preparing and checking it; and the cache of decoded images."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import cli
from bench.data.catalogue import CATALOGUE
from bench.data.prepare import steps
from bench.data.prepare.obtain import Access
from bench.paths import cache_dir, exists
from bench.store import cache


def main() -> int:
    args = _parser().parse_args()
    return COMMANDS[args.command](args)


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog="python -m bench.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = "what each dataset is, where it comes from, what is here and what is missing"
    commands.add_parser("list", help=listing, description=listing)
    preparing = (
        "download where the source allows it, unpack, build a split and write its manifest "
        "($BENCH_DATA/NAME or data/NAME)"
    )
    of_prepare = commands.add_parser("prepare", help=preparing, description=preparing)
    of_prepare.add_argument(
        "--mirror", default="", metavar="URL", help="fetch the same file names from here instead"
    )
    of_prepare.add_argument(
        "--offline", action="store_true", help="never touch the network (also BENCH_OFFLINE=1)"
    )
    of_prepare.add_argument(
        "--manifest",
        type=cli.folder,
        metavar="FILE",
        help="another user's split, to be rebuilt exactly",
    )
    checking = "counts, sha256 and decodability of what was prepared, or of any folder of images"
    of_verify = commands.add_parser("verify", help=checking, description=checking)
    for sub in (of_prepare, of_verify):
        also = ", or a folder" if sub is of_verify else ""
        sub.add_argument("name", metavar="NAME", help=", ".join(CATALOGUE) + also)
        sub.add_argument(
            "--split",
            default="",
            metavar="S",
            help="default: the dataset's first; for verify, all that are here",
        )
        sub.add_argument(
            "--partial", action="store_true", help="accept other counts than the whole dataset's"
        )
    holding = "what the cache holds"
    of_cache = commands.add_parser("cache", help=holding, description=cache.__doc__)
    of_cache.add_argument(
        "--clear", action="store_true", help="drop every entry; it is made again when needed"
    )
    return parser


def _list(args: argparse.Namespace) -> int:
    print("\n\n".join("\n".join(steps.describe(entry)) for entry in CATALOGUE.values()))
    return cli.FINE


def _prepare(args: argparse.Namespace) -> int:
    entry = steps.entry_of(args.name)
    access = Access(args.mirror, args.offline)
    if args.manifest:
        return _exit_code(steps.adopt(entry, args.split, args.manifest, access))
    split = steps.split_of(entry, args.split)
    return _exit_code(steps.prepare(entry, split, access, args.partial))


def _verify(args: argparse.Namespace) -> int:
    folder = Path(args.name).expanduser()
    if args.name not in CATALOGUE and exists(folder):
        return _exit_code(steps.verify_folder(folder))
    return _exit_code(steps.verify(steps.entry_of(args.name), args.split, args.partial))


def _exit_code(outcome: steps.Outcome) -> int:
    """Prints what a step says."""
    print("\n".join(outcome.lines))
    return cli.CHECK_FAILED if outcome.problems else cli.FINE


def _cache(args: argparse.Namespace) -> int:
    limit = cache.limit()
    if args.clear:
        print(f"{cache_dir()}: {cache.trim(0)} entries dropped")
        return cli.FINE
    print(f"{cache_dir()} (limit {limit / cache.GIB:g} GiB, $BENCH_CACHE_LIMIT)")
    kept = cache.entries()
    for kind in cache.KINDS:
        sizes = [size for file, size, _ in kept if file.parent.name == kind]
        print(f"{kind:8} {len(sizes):6} entries {sum(sizes) / cache.GIB:9.3f} GiB")
    return cli.FINE


COMMANDS = {"list": _list, "prepare": _prepare, "verify": _verify, "cache": _cache}

if __name__ == "__main__":
    cli.run(main)
