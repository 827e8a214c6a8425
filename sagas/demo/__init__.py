"""The demo: each domain on real services, with faults and killed processes, and an audit of what is left."""
