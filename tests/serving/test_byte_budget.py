"""Byte budget: counted from the first byte to the answer, half of it for one client, nothing left behind."""

import threading

import pytest

from hybridclf.serving.byte_budget import ByteBudget
from hybridclf.serving.errors import Refusal


def refused(call: object, *arguments: object) -> int:
    with pytest.raises(Refusal) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.status


def test_what_is_held_is_free_again_at_the_end() -> None:
    budget = ByteBudget(100)
    with budget.hold("a") as one, budget.hold("b") as two:
        one.reserve(40)
        two.reserve(50)
        one.release(15)
        assert budget.held == 75
    assert budget.held == 0
    with pytest.raises(ZeroDivisionError), budget.hold("a") as one:
        one.reserve(40)
        raise ZeroDivisionError
    assert budget.held == 0


def test_one_client_gets_half_and_all_together_no_more_than_all() -> None:
    budget = ByteBudget(100)
    with budget.hold("a") as one, budget.hold("a") as two, budget.hold("b") as three, budget.hold("c") as four:
        one.reserve(30)
        assert refused(two.reserve, 21) == 429
        two.reserve(20)
        three.reserve(40)
        assert refused(four.reserve, 11) == 429
        four.reserve(10)
        assert budget.held == 100


def test_a_request_that_never_fits_is_too_large() -> None:
    budget = ByteBudget(100)
    with budget.hold("a") as hold:
        hold.reserve(50)
        assert refused(hold.reserve, 1) == 413
        assert budget.held == 50


def test_a_thread_that_still_works_for_an_ended_request_gets_none() -> None:
    budget = ByteBudget(100)
    with budget.hold("a") as hold:
        pass
    assert refused(hold.reserve, 1) == 499
    assert budget.held == 0


def test_many_threads_leave_nothing_behind() -> None:
    budget = ByteBudget(10**6)

    def work(client: str) -> None:
        for n in range(300):
            with budget.hold(client) as hold:
                hold.reserve(n)
                hold.reserve(7)
                hold.release(n // 2)

    threads = [threading.Thread(target=work, args=(str(i % 3),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.held == 0
