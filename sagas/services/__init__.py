"""Small real HTTP services that the sagas of this package run against, one process and one SQLite file each."""
