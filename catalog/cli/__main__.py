"""`python -m catalog.cli`: the command where its script is not installed."""

from catalog.cli import main

main()
