"""The benchmark suite: whole-layer calls of pytfmbs and of its peers, timed side by side.

    python -m benchmarks.suite run        measures, shows tables, writes JSON and pictures
    python -m benchmarks.suite growth     Time per weight and per row, over sizes
    python -m benchmarks.suite judge      the ratios that the project holds itself to
    python -m benchmarks.suite draw       the pictures, of a JSON file

`make bench` installs the peers and runs the first.
"""
