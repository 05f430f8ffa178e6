"""Part 8, Graphs: contrast on networks, and on who clicked what and when."""
