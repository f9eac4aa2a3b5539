"""``python -m fedlit.cli``."""

from fedlit.cli.app import main

main()
