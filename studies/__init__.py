"""Studies: grids of runs whose tables stand in docs/. Each is one command, goes on where it stopped, and writes JSON."""
