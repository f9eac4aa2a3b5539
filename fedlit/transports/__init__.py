"""How jobs reach clients and updates come back."""

from fedlit.transports.admission import Inbox, Refused, admit
from fedlit.transports.base import Job, Reply, Transport
from fedlit.transports.local import LocalClients
from fedlit.transports.ranks import RankTransport

__all__ = ["Inbox", "Job", "LocalClients", "RankTransport", "Refused", "Reply", "Transport", "admit"]
