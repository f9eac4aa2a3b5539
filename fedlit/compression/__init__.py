"""Uploads made shorter before they are sent: :class:`Transform` is what to subclass for one of your own."""

from fedlit.compression.base import Transform
from fedlit.compression.channel import Channel, Sent
from fedlit.compression.rounding import BFloat16, Int8
from fedlit.compression.sparse import TopK

__all__ = ["BFloat16", "Channel", "Int8", "Sent", "TopK", "Transform"]
