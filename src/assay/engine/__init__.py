"""How a run is executed on the machine at hand."""
