"""Whether enough clients count for a round to go on."""

from __future__ import annotations

from fedlit.errors import FedlitError, Interrupted
from fedlit.federation.plan import RoundPlan
from fedlit.transports import Inbox


def demand_quorum(index: int, asked: int, plan: RoundPlan, inbox: Inbox) -> None:
    """Stop a round in which too few clients count.

    With ``min_replies`` that many updates must have been admitted. Without it every client must have answered, though
    its reply may have been refused.

    Args:
        index: Of the round, from 0.
        asked: Clients that were asked.
        plan: Says how many are needed.
        inbox: Of the round, after its last reply.

    Raises:
        Interrupted: Too few count; those that did not answer are named.
        FedlitError: Every client was refused.
    """
    settings, missing = plan.settings, inbox.missing()
    needed, admitted, refused = plan.replies_needed(asked), len(inbox.updates), len(inbox.refused)
    answered = len(inbox.admitted | inbox.refused.keys())  # one that answered twice counts once
    counted = answered if settings.min_replies is None else admitted
    if missing and counted < needed:
        names = ", ".join(missing[:5]) + (" and more" if len(missing) > 5 else "")
        within = "" if settings.deadline_s is None else f" within {settings.deadline_s:g} s"
        raise Interrupted(
            f"round {index + 1}: {names} did not answer{within}: {counted} of {asked} clients count, {needed} are "
            "needed. The round before is kept: resume with --ckpt_path last, with a longer trainer.deadline_s or a "
            "lower trainer.min_replies if they may be missing"
        )
    if not admitted:
        reasons = "; ".join(f"{client}: {why}" for client, why in sorted(inbox.refused.items())[:3])
        raise FedlitError(f"round {index + 1}: every client was refused ({reasons}). Nothing committed was lost")
    if counted < needed:
        raise Interrupted(
            f"round {index + 1}: {admitted} of {asked} clients count, trainer.min_replies needs {needed} ({refused} "
            "refused). The round before is kept: resume with --ckpt_path last"
        )
