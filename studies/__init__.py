"""Studies: grids of runs whose tables stand in docs/. One command each; goes on where it stopped; writes JSON."""
