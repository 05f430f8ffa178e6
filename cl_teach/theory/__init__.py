"""Part 2, Theory: what temperature does, why no negatives can be enough, how linear models learn, what a head is for."""
