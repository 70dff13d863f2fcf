"""`python -m pathassets` is the command `pathassets`."""

from pathassets.cli import main

main()
