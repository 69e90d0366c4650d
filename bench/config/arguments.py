"""The command line that every command with a suite shares: SUITE, --set, --name, --results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.config.mmengine_config import DictAction

VERBATIM_KEYS = ("data.root", "data.split", "backbone.checkpoint")


def add_suite_arguments(parser: argparse.ArgumentParser) -> None:
    """SUITE, --set, --name and --results."""
    parser.add_argument(
        "suite",
        nargs="?",
        default="mini",
        help="A name in bench/suites, or a config file (.py); default: mini.",
    )
    group = parser.add_argument_group("the suite")
    group.add_argument(
        "--set",
        nargs="+",
        action=SetAction,
        type=assignment,
        default={},
        metavar="KEY=VALUE",
        dest="overrides",
        help="Change settings, e.g. train.epochs=2 data.root=DIR methods.hlgp.model.groups=6.",
    )
    group.add_argument(
        "--name", default="", help="Name of the results folder (default: that of the suite)."
    )
    group.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="Folder of results (default: results).",
    )


def assignment(text: str) -> str:
    """argparse type of one `--set` item."""
    key, equals, _ = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"'{text}': KEY=VALUE is expected")
    return text


class SetAction(DictAction):
    """mmengine's KEY=VALUE; paths and names are kept as they are typed.

    DictAction would drop blanks and split at commas.
    """

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        options = dict(getattr(namespace, self.dest) or {})
        for item in values:
            key, _, text = item.partition("=")
            try:
                verbatim = key.endswith(VERBATIM_KEYS)
                options[key] = text if verbatim else self._parse_iterable(text)
            except AssertionError:  # brackets that do not match
                parser.error(f"argument --set: '{item}': a value that can be read is expected")
        setattr(namespace, self.dest, options)
