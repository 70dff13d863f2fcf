"""The `pathassets` command.

Belongs here: arguments, printing, exit codes (0 = all well, 1 = some slides failed and the rest are done, 2 = cannot
start). Does not belong: anything a program would want to call.
"""

from pathassets.cli.main import main

__all__ = ["main"]
