"""When steps that call a service are repeated: the same choices in every process of this package."""

from saga import OutcomeUnknownError, RetryPolicy
from sagas.errors import ChallengePendingError, PendingElsewhereError, ServiceUnreachableError

STEP_SECONDS = 10.0
"""The timeout of a step that makes one call; the client gives up earlier, so that it is it who says what is known."""

NO_ANSWER = (ServiceUnreachableError, OutcomeUnknownError, TimeoutError)

NOT_AN_ANSWER = (ServiceUnreachableError,)
"""``unknown_on`` of every pivot: that nothing was sent this time says nothing about an earlier call without an answer.

A definite failure of a pivot turns the saga back, so only what the service itself says may count as one.
"""

ASK_AGAIN = RetryPolicy(max_attempts=4, initial_interval=0.2, max_interval=2.0, retry_on=NO_ANSWER)
"""Before the pivot: a service that gives no answer is asked again, under the same key; a refusal is final."""

UNDO = RetryPolicy(max_attempts=20, initial_interval=0.2, max_interval=60.0, retry_on=NO_ANSWER)
"""Backward: asked for about five minutes. A refusal is final: the saga is FAILED, since a person must decide."""

UNTIL_DONE = RetryPolicy(max_attempts=None, initial_interval=0.2, max_interval=60.0, retry_on=NO_ANSWER)
"""After the pivot: asked until there is an answer. A refusal parks the saga, since a person must decide.

Services keep no refusals of what stands there: after ``retry`` the same key is looked at anew.
"""

WAIT_FOR_HOLDER = RetryPolicy(
    max_attempts=None,
    initial_interval=0.5,
    backoff=1.5,
    max_interval=5.0,
    max_elapsed=180.0,
    jitter="none",
    retry_on=(*NO_ANSWER, ChallengePendingError),
)
"""While the holder of a card is asked: three minutes, as long as banks leave a 3-D Secure challenge open."""

WAIT_FOR_OTHERS = RetryPolicy(
    max_attempts=8, initial_interval=0.2, max_interval=2.0, retry_on=(*NO_ANSWER, PendingElsewhereError)
)
"""What is only pending for others may become free again: worth asking for a few seconds, not worth waiting longer."""
