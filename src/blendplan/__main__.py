"""``python -m blendplan``: the same as ``blendplan``."""

from blendplan.cli import main

main()
