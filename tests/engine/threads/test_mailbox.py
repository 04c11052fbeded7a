"""Tests of walsyncd.engine.threads.mailbox."""

from __future__ import annotations

from walsyncd.engine.threads.mailbox import Mailbox, Request


def request() -> Request:
    return Request(lambda _tracked: None)


def test_a_ticket_counts_those_who_asked_before_it() -> None:
    """Requests that were answered since, and requests that came after the ticket, do not matter."""
    mailbox = Mailbox()
    mailbox.ask(request())
    mailbox.ask(request())
    ticket = mailbox.ticket()
    mailbox.ask(request())
    assert mailbox.asked_upto(ticket) == 2
    mailbox.take(1)
    assert mailbox.asked_upto(ticket) == 1
    mailbox.take()
    mailbox.ask(request())
    assert mailbox.asked_upto(ticket) == 0
