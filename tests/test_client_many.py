"""Many calls in flight: order, bounds, errors, and leaving early."""

import threading

import pytest

from bsdenoise.parallel import in_order

WAIT = 20  # seconds, for what takes none


def test_results_come_in_order_whichever_ends_first():
    second_done = threading.Event()

    def work(item):
        if item == 0:
            assert second_done.wait(WAIT)
        if item == 1:
            second_done.set()
        return 10 * item

    assert [(item, future.result()) for item, future in in_order(work, range(5), 2)] == [(i, 10 * i) for i in range(5)]


def test_an_error_stands_in_its_place():
    def work(item):
        return 1 / item

    finished = [future for _, future in in_order(work, [1, 0, 2], 3)]
    assert [finished[0].result(), finished[2].result()] == [1.0, 0.5]
    assert isinstance(finished[1].exception(), ZeroDivisionError)


def test_no_more_than_asked_for_at_once_and_few_ahead():
    all_running = threading.Barrier(3, timeout=WAIT)
    lock, running, most = threading.Lock(), 0, 0

    def work(item):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        all_running.wait()  # fewer than three at once would never pass
        with lock:
            running -= 1
        return item

    taken = []

    def items():
        for item in range(12):
            taken.append(item)
            yield item

    for index, (item, _) in enumerate(in_order(work, items(), 3)):
        assert item == index
        assert len(taken) <= index + 2 * 3
    assert most == 3


def test_items_have_costs_and_large_ones_go_two_at_a_time():
    taken = []

    def items():
        for cost in (1, 1, 1, 1, 9, 9, 9, 1):
            taken.append(cost)
            yield cost

    ahead = []
    for number, (cost, _) in enumerate(in_order(str, items(), 2, cost=lambda cost: cost, budget=4), start=1):
        ahead.append((cost, taken[number:]))
    assert ahead == [(1, [1, 1, 1]), (1, [1, 1, 9]), (1, [1, 9]), (1, [9]), (9, [9]), (9, [9]), (9, [1]), (1, [])]


@pytest.mark.parametrize("prompt", [True, False])
def test_a_prompt_result_is_given_as_soon_as_it_is_the_next(prompt):
    taken, second_started, release = [], threading.Event(), threading.Event()

    def items():
        for item in range(6):
            if item == 2:
                assert second_started.wait(WAIT)  # in the one thread: so the first is done
            taken.append(item)
            yield item

    def work(item):
        if item == 1:
            second_started.set()
            assert release.wait(WAIT)
        return item

    results = in_order(work, items(), 1, cost=lambda _: 1, budget=100, prompt=prompt)
    assert next(results)[0] == 0
    assert len(taken) <= 3 if prompt else len(taken) == 6
    release.set()
    assert [item for item, _ in results] == [1, 2, 3, 4, 5]


def test_leaving_early_starts_nothing_more():
    started, release = [], threading.Event()

    def work(item):
        started.append(item)
        if item:
            release.wait(WAIT)

    before = threading.active_count()
    results = in_order(work, range(100), 2)
    next(results)
    results.close()
    release.set()
    for thread in threading.enumerate():
        if thread.name.endswith("(_work)"):
            thread.join(WAIT)
    assert threading.active_count() <= before
    assert len(started) <= 4


def test_an_error_of_the_items_comes_through():
    def items():
        yield 1
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(in_order(str, items(), 2))


@pytest.mark.parametrize("concurrency", [0, -1])
def test_concurrency_must_be_positive(concurrency):
    with pytest.raises(ValueError, match="`concurrency` must be at least 1. Received: concurrency="):
        in_order(str, [], concurrency)
