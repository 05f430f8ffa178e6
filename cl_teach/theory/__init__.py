"""Part 2, Theory: temperature, learning without negatives, linear dynamics, the projection head."""
