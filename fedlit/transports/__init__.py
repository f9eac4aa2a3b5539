"""How jobs reach sites and updates come back."""

from fedlit.transports.admission import Inbox, Refused, admit
from fedlit.transports.base import Description, Job, Kind, Reply, Transport
from fedlit.transports.local import LocalSites
from fedlit.transports.ranks import RankTransport

__all__ = [
    "Description", "Inbox", "Job", "Kind", "LocalSites", "RankTransport", "Refused", "Reply", "Transport", "admit",
]  # fmt: skip
