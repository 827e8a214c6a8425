"""The demo: orders on real services, among them one whose worker process is killed in the middle."""
