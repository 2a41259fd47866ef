"""`python -m fieldmark` is `fieldmark`."""

from fieldmark.cli import main

main()
