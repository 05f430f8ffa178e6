"""Part 5, Labels: contrast when labels are long-tailed, noisy, partly unknown, or numbers."""
