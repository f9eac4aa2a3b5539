"""What a reader of a figure must know to read it right: said in titles and in ``summary.json``."""

from __future__ import annotations

from typing import Any

from fedlit.compression import Channel
from fedlit.federation.session import Session


def labels(session: Session) -> list[str]:
    """Data and backbone, real or not, and whatever makes scores other than plain ones on all of the data."""
    roster, settings = session.roster, session.settings
    out = ["data: SIMULATED" if roster.simulated else "data: real"]
    about: dict[str, Any] = session.about_task()
    if about:
        out.append(f"backbone: {about.get('source', about.get('backbone'))}")
    out += roster.notes
    clients, batches = settings.limit_eval_clients, settings.limit_eval_batches
    if clients is not None and clients < len(roster.clients):
        out.append(f"scored at the first {clients} of {len(roster.clients)} clients only")
    if batches is not None:
        out.append(f"scored on at most {batches} {'batch' if batches == 1 else 'batches'} of each client")
    if settings.compression:
        out.append(f"uploads: {Channel(settings.compression).label}")
    return out
