"""Command line of the toolkit."""

import typer

app = typer.Typer(no_args_is_help=True)


def main() -> None:
    """Run ``splatforge``."""
    app()
