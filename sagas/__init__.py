"""Business processes built on `saga`, and the small services they run against."""
