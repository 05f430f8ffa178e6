"""Part 6, Language: contrast of sentences and of code."""
