"""Dotted overrides on Snakemake's command line: ``snakemake --config finetune.num_epochs=1``.

Snakemake checks the names of ``--config`` entries before it reads any workflow file and refuses a dot. What it does
load before that is its plugins, so this is installed as one (``pip install .``). It turns a dotted entry into the
nested value Snakemake knows, ``finetune={num_epochs: 1}``, which works without this plugin too, and does nothing else:
it is never selected as a logger, and other workflows' entries (no dot) pass untouched.
"""

import functools
from typing import Any

from snakemake import cli
from snakemake.utils import update_config
from snakemake_interface_logger_plugins.base import LogHandlerBase

_parse_plain = cli.parse_config


@functools.wraps(_parse_plain)
def parse_config(entries: list[str] | None) -> dict[str, Any]:
    """Snakemake's ``parse_config``, with names such as ``section.option``."""
    config: dict[str, Any] = {}
    for entry in entries or []:
        name, equals, value = entry.partition("=")
        *sections, option = name.split(".")
        if not equals or not sections or not all(part.isidentifier() for part in (*sections, option)):
            update_config(config, _parse_plain([entry]))
            continue
        # a one-letter name is an identifier, but not to Snakemake; the placeholder keeps its reading of values alone
        nested = {option: _parse_plain([f"value={value}"])["value"]}
        for section in reversed(sections):
            nested = {section: nested}
        update_config(config, nested)
    return config


cli.parse_config = parse_config


class LogHandler(LogHandlerBase):
    """Required of a logger plugin; says nothing."""

    def __post_init__(self) -> None:
        """Nothing to set up."""

    def emit(self, record: Any) -> None:
        """Say nothing."""

    @property
    def writes_to_stream(self) -> bool:
        """No."""
        return False

    @property
    def writes_to_file(self) -> bool:
        """No."""
        return False

    @property
    def has_filter(self) -> bool:
        """No."""
        return False

    @property
    def has_formatter(self) -> bool:
        """No."""
        return False

    @property
    def needs_rulegraph(self) -> bool:
        """No."""
        return False
