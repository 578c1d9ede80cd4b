"""Many processes as one run: how they find each other, agree, and end together."""

from medjax.distributed.agreement import check_agreement as check_agreement
from medjax.distributed.agreement import versions as versions
from medjax.distributed.exchange import exchange as exchange
from medjax.distributed.exchange import fetch as fetch
from medjax.distributed.exchange import first_of as first_of
from medjax.distributed.exchange import publish as publish
from medjax.distributed.exchange import retract as retract
from medjax.distributed.initialize import initialize_distributed as initialize_distributed
from medjax.distributed.together import Together as Together
