"""Business processes built on `saga`, and the small services they run against.

They log with the standard library, below the logger ``sagas``; without a handler of the application's own they are
silent.
"""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())
