from typing import Any

from normcli import layers as layers
from normcli import testing as testing
from normcli.arithmetic.result import Result as Result
from normcli.calculate import normalize as normalize
from normcli.datasets.pooling import Pooled as Pooled
from normcli.datasets.pooling import stats as stats
from normcli.layers import with_state as with_state
from normcli.showing.python import axes as axes
from normcli.teaching.python import check as check
from normcli.teaching.python import trace as trace
from normcli.teaching.python import versus as versus

__version__: str
__all__ = ["Pooled", "Result", "axes", "check", "layers", "normalize", "stats", "testing", "trace", "versus"]

# How Result and others say themselves; see normcli.words.Told.
def told(thing: object) -> str: ...
def mimebundle(thing: object) -> dict[str, Any]: ...
