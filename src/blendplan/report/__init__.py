"""Report: tables and pictures for people.

Tables are drawn with rich from plain numbers: the dictionaries that ``--json`` prints, and columns.
Pictures of a comparison go one way: `figures` collects the numbers behind them, `charts` draws them
with matplotlib, `html` puts them into one file of HTML and SVG, `figures_png` into PNG files. Knows
nothing of the command line.
"""
