"""`python -m shadowmmu`."""

from shadowmmu.cli.main import main

main()
