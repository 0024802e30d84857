"""Records in, figures and tables out: nothing here knows what a run is."""
