"""Tickets: issued once, taken once, by nobody else."""

import threading

from probe.proxy.tickets import Ticket, Tickets


def test_a_ticket_is_taken_once() -> None:
    tickets = Tickets()
    ticket = tickets.issue("trial-1", 2)
    assert (ticket.trial_id, ticket.attempt, ticket.timed_out) == ("trial-1", 2, False)
    assert tickets.take(ticket.token) is ticket
    assert tickets.take(ticket.token) is None


def test_a_stranger_gets_none() -> None:
    tickets = Tickets()
    ticket = tickets.issue("trial-1", 1)
    assert tickets.take(None) is None
    assert tickets.take("") is None
    assert tickets.take("trial-1") is None
    assert tickets.take(ticket.token.upper()) is None or ticket.token == ticket.token.upper()
    assert tickets.take(ticket.token[:-1]) is None
    assert tickets.take(ticket.token) is ticket


def test_tokens_are_all_different() -> None:
    tickets = Tickets()
    assert len({tickets.issue("trial-1", 1).token for _ in range(1000)}) == 1000


def test_a_cancelled_ticket_is_closed() -> None:
    tickets = Tickets()
    ticket = tickets.issue("trial-1", 1)
    tickets.cancel(ticket)
    assert tickets.take(ticket.token) is None
    tickets.cancel(ticket)


def test_of_many_threads_one_gets_the_ticket() -> None:
    tickets = Tickets()
    ticket = tickets.issue("trial-1", 1)
    got: list[Ticket] = []
    start = threading.Barrier(8)

    def take() -> None:
        start.wait()
        taken = tickets.take(ticket.token)
        if taken is not None:
            got.append(taken)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [ticket]
