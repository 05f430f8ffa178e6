"""Part 7, Crossmodal: contrast between images, texts and other kinds of data."""
