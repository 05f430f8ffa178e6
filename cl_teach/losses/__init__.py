"""Part 3, Losses: nine ways to reshape the comparison."""
