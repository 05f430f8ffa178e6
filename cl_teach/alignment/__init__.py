"""Methods for aligning language models: learning from preferences."""
