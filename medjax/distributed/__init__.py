"""Many processes as one run: how they find each other, agree, and end together."""

from medjax.distributed.agreement import check_agreement, versions
from medjax.distributed.exchange import exchange, fetch, first_of, publish, retract
from medjax.distributed.initialize import initialize_distributed
from medjax.distributed.together import Together

__all__ = [
    "Together",
    "check_agreement",
    "exchange",
    "fetch",
    "first_of",
    "initialize_distributed",
    "publish",
    "retract",
    "versions",
]
