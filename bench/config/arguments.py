"""The command line that every command with a suite shares: SUITE, --set, --name, --results."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from bench import cli
from bench.config.mmengine_config import DictAction

PATH_KEYS = ("data.root", "backbone.checkpoint", "data.class_order")
VERBATIM_KEYS = (*PATH_KEYS, "data.split")
NUMBERS = re.compile(r"[\d,\s()\[\]]+")


def add_suite_arguments(parser: argparse.ArgumentParser) -> None:
    """SUITE, --set, --name and --results."""
    parser.add_argument(
        "suite",
        nargs="?",
        type=cli.results_name,
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
        "--name",
        type=cli.results_name,
        default="",
        help="Name of the results folder (default: that of the suite).",
    )
    group.add_argument(
        "--results",
        type=cli.folder,
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
                if key.endswith("data.class_order") and NUMBERS.fullmatch(text):
                    verbatim = False  # the numbers themselves
                options[key] = text if verbatim else self._parse_iterable(text)
            except AssertionError:  # brackets that do not match
                parser.error(f"argument --set: '{item}': a value that can be read is expected")
        setattr(namespace, self.dest, options)
