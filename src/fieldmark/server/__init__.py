"""The report, live: pages that are updated as records grow, and control of the work for who may."""
