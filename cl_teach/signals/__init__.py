"""Methods for signals: time series, audio, medical recordings."""
