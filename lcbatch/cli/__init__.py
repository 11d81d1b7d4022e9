"""The command line: Typer on the outside, `Job` on the inside."""
