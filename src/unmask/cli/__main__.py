"""`python -m unmask.cli`."""

from . import main

main()
