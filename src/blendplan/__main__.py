"""``python -m blendplan``: the same as ``blendplan``."""

from blendplan.cli.group import main

main()
