"""The options of both commands."""

from typing import Annotated, Final

import typer

from trainable.installation import installation_said

HELP: Final = {"help_option_names": ["-h", "--help"]}
"""Settings of a Typer context; its commands inherit them."""


def _show(asked: bool) -> None:
    if asked:
        print(installation_said())
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version",
        help="Print the version and the path of the code.",
        is_eager=True,
        callback=_show,
    ),
]
