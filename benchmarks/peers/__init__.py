"""The models that assay is measured beside: those of other libraries, and two written anew."""
