"""Work shared among processes, with results in order: the same whatever their number."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from thermalreid_ros.errors import ThermalReidError


class WorkerError(ThermalReidError):
    """A process that ended before its work was done."""


def run_missing(make: Callable[..., Callable[[Any], Any]], arguments: tuple, jobs: Sequence[Any],
                there: Callable[[Any], bool], workers: int) -> Iterator[Any]:
    """Each job, in their order, once it is done: those that are not `there` yet as of run_in_order, whose arguments and
    errors are these, too; the others at once."""
    lacks = [not there(job) for job in jobs]
    done = run_in_order(make, arguments, [job for job, lacking in zip(jobs, lacks) if lacking], workers)
    for job, lacking in zip(jobs, lacks):
        if lacking:
            next(done)
        yield job


def run_in_order(make: Callable[..., Callable[[Any], Any]], arguments: tuple, jobs: Sequence[Any],
                 workers: int) -> Iterator[Any]:
    """work(job) for each job, in their order, where work = make(*arguments) is made once in each process.

    workers: processes; with 1 the work is done in this one. make, arguments, jobs and results must be picklable;
    results wait here until their turn comes, so let large ones go to files. The first error ends it all; a process
    that is killed raises WorkerError.
    """
    if workers <= 1 or len(jobs) <= 1:
        if jobs:
            work = make(*arguments)
            yield from map(work, jobs)
        return
    context = multiprocessing.get_context("spawn")  # Embree's and OpenCV's threads do not survive a fork
    processes: dict[Connection, Any] = {}
    try:
        for _ in range(min(workers, len(jobs))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
            process.start()
            theirs.close()
            processes[ours] = process
        queue, results, due = iter(enumerate(jobs)), {}, 0
        busy = {connection: number for connection in processes if (number := _give(connection, queue)) is not None}
        while due < len(jobs):
            for connection in wait(list(busy)):
                try:
                    done, value = connection.recv()
                except (EOFError, OSError):
                    raise WorkerError("a worker process was killed, most likely for want of memory; try again with "
                                      "--workers 1 or a smaller area") from None
                if not done:
                    raise value
                results[busy.pop(connection)] = value
                if (number := _give(connection, queue)) is not None:
                    busy[connection] = number
            while due in results:
                yield results.pop(due)
                due += 1
    finally:
        for connection, process in processes.items():
            connection.close()
            process.terminate()
        for process in processes.values():
            process.join()


def _give(connection: Connection, queue: Iterator[tuple[int, Any]]) -> int | None:
    number, job = next(queue, (None, None))
    if number is not None:
        try:
            connection.send(job)
        except OSError:  # it has gone: its silence is noticed by the receiver
            pass
    return number


def _serve(connection: Connection, make: Callable[..., Callable[[Any], Any]], arguments: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends this one
    try:
        import cv2

        cv2.setNumThreads(1)  # the processes themselves fill the machine
        work = make(*arguments)
        while True:
            try:
                job = connection.recv()
            except (EOFError, OSError):
                return
            _answer(connection, (True, work(job)))
    except ThermalReidError as error:
        _answer(connection, (False, error))
    except Exception:
        _answer(connection, (False, RuntimeError("a worker process failed:\n" + traceback.format_exc())))


def _answer(connection: Connection, answer: tuple[bool, Any]) -> None:
    try:
        connection.send(answer)
    except OSError:  # who asked has been killed: the next question does not come
        pass
