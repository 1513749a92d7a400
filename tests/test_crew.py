import threading
import time

import joblib
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from skae._validation import free_threads
from skae.crew import Crew, alone, crew, hired


@pytest.fixture(params=[1, 2, 3])
def members(request):
    members = Crew(request.param)
    yield members
    members.dismiss()


def blas_threads():
    return {
        lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"
    }


def n_threads():
    return sum(thread.name.startswith("skae") for thread in threading.enumerate())


def test_each_member_does_its_share(members):
    done = []
    members.run([done.append])
    assert sorted(done) == [(i, members.size) for i in range(members.size)]


def test_works_of_a_phase_come_in_order(members):
    done = []
    works = [lambda part, k=k: done.append((part[0], k)) for k in range(3)]
    members.run(works)
    for i in range(members.size):
        assert [k for j, k in done if j == i] == [0, 1, 2]


def test_no_one_begins_before_all_have_finished(members):
    done = []

    def slow(part):
        time.sleep(0.01 * part[0])
        done.append("slow")

    members.run([slow], [lambda part: done.append("next")], [slow])
    n = members.size
    assert done == ["slow"] * n + ["next"] * n + ["slow"] * n


def test_one_can_be_alone(members):
    done = []
    members.run([alone(lambda: done.append(1))])
    assert done == [1]


def test_a_crew_works_again_and_again(members):
    count = np.zeros(members.size)

    def work(part):
        count[part[0]] += 1

    for _ in range(100):
        members.run([work], [work])
    np.testing.assert_array_equal(count, 200)


@pytest.mark.parametrize("who", [0, 1, 2])
def test_an_error_of_any_member_is_raised(who):
    members = Crew(3)

    def fail(part):
        if part[0] == who:
            raise ZeroDivisionError("so it is")

    with pytest.raises(ZeroDivisionError, match="so it is"):
        members.run([fail], [lambda part: None])
    with pytest.raises(ZeroDivisionError, match="so it is"):
        members.run([lambda part: None])
    members.dismiss()
    assert n_threads() == 0


def test_a_dismissed_crew_does_nothing():
    members = Crew(2)
    members.dismiss()
    with pytest.raises(RuntimeError, match="ended"):
        members.run([lambda part: None])


def test_what_a_phase_calls_works_alone():
    sizes = []

    def work(part):
        with crew(2) as inner:
            inner.run([lambda part: sizes.append(part)])

    with threadpool_limits(2, user_api="blas"), crew(2) as members:
        members.run([work], [work])
        assert hired() is members
    assert sizes == [(0, 1)] * 2 * members.size


def test_the_last_of_overlapping_crews_lifts_the_limit():
    first, second = crew(2), crew(2)
    entered, leave = threading.Event(), threading.Event()

    def other():
        with second:
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    limit = threadpool_limits(2, user_api="blas")
    try:
        with first:
            thread.start()
            entered.wait()
        assert blas_threads() == {1}
        leave.set()
        thread.join()
        assert blas_threads() == {2}
    finally:
        limit.restore_original_limits()


def test_members_ignore_floating_point_trouble():
    with np.errstate(all="ignore"):
        members = Crew(2)
        members.run([lambda part: np.divide(1.0, np.zeros(2))])
        members.dismiss()


def test_without_a_crew_one_is_alone():
    assert hired().size == 1


@pytest.mark.parametrize("allowed", [1, 2])
def test_a_crew_has_the_threads_that_products_were_allowed(allowed):
    with threadpool_limits(allowed, user_api="blas"):
        expected = min(free_threads(), 5)
        with crew(5) as members:
            assert members is hired()
            assert members.size == expected <= allowed
            assert blas_threads() == {1}
            assert n_threads() == members.size - 1
        assert blas_threads() == {allowed}
    assert hired().size == 1
    assert n_threads() == 0


def test_a_crew_is_no_larger_than_asked():
    with threadpool_limits(2, user_api="blas"), crew(1) as members:
        assert members.size == 1


def test_whoever_asks_again_gets_the_same_crew():
    with crew(2) as members:
        with crew(1) as again:
            assert again is members
        members.run([lambda part: None])


def test_a_crew_goes_home_after_an_error():
    with threadpool_limits(2, user_api="blas"):
        with pytest.raises(ZeroDivisionError), crew(2) as members:
            members.run([lambda part: 1 / 0])
        assert blas_threads() == {2}
    assert n_threads() == 0
    assert hired().size == 1


def test_overlapping_crews_do_not_add_up():
    sizes, threads, meet = [], [], threading.Barrier(2)

    def fit():
        with crew(2) as members:
            meet.wait()
            sizes.append(members.size)
            threads.append(n_threads())
            meet.wait()

    with threadpool_limits(2, user_api="blas"):
        expected = min(free_threads(), 2)
        callers = [threading.Thread(target=fit) for _ in range(2)]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join()
    assert sizes == [expected] * 2
    assert threads == [expected - 1] * 2


@pytest.mark.parametrize("size", [1, 2, 5])
def test_one_thread_can_do_the_work_of_all(size):
    done, members = [], Crew(size, n_threads=1)
    works = [lambda part, k=k: done.append((k, part)) for k in range(3)]
    members.run(works[:2], works[2:])
    parts = [(i, size) for i in range(size)]
    assert done == [(k, p) for p in parts for k in (0, 1)] + [(2, p) for p in parts]
    assert n_threads() == 0


def test_a_crew_is_of_the_same_size_where_no_thread_is_free():
    def fit(_):
        with crew(5) as members:
            return members.size

    with threadpool_limits(2, user_api="blas"):
        expected = fit(None)
        parallel = joblib.Parallel(n_jobs=2, backend="threading")
        assert parallel(joblib.delayed(fit)(i) for i in range(4)) == [expected] * 4


def test_no_thread_is_free_within_joblib_s_threads():
    with threadpool_limits(2, user_api="blas"):
        parallel = joblib.Parallel(n_jobs=2, backend="threading")
        assert parallel(joblib.delayed(free_threads)() for _ in range(4)) == [1] * 4


def test_processes_of_joblib_share_the_threads(monkeypatch):
    for library in ("OPENBLAS", "OMP", "MKL", "BLIS"):
        monkeypatch.delenv(f"{library}_NUM_THREADS", raising=False)
    parallel = joblib.Parallel(n_jobs=2, backend="loky")
    found = parallel(joblib.delayed(free_threads)() for _ in range(2))
    assert max(found) <= max(1, joblib.cpu_count() // 2)
