"""How much context tiles have by the pooling grid alone: that of the package's U-Nets, and of a server's models."""

REACH = 10  # of the blind-spot network to every side, in units of its pooling grid, rounded up
MAX_CONTEXT = 160  # the reach at a depth of 4; benchmarks/tiles.py measures what less than the reach costs


def of_grid(grid: int) -> int:
    """Return the reach of the blind-spot network with that grid, at most 160 pixels; a multiple of the grid."""
    return min(REACH * grid, MAX_CONTEXT) // grid * grid
