"""Methods that change what counts as a view: where positives come from and what each view should keep."""
