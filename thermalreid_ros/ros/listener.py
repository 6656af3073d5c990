"""A node in a process that is about something else: it hears what the graph says, on a thread of its own."""

from __future__ import annotations

import threading
from contextlib import suppress

import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from thermalreid_ros.ros.environment import prepare_process

ENDS_WITHIN_S = 5.0


class Listener:
    """Spins `node` until it is closed; what is created on the node works at once, its callbacks on the thread.

    Signals stay what they were for the process. Several may be there at once, each in the ROS domain of the
    environment at its birth; each holds a participant's shared memory until it is closed.
    """

    def __init__(self, name: str) -> None:
        prepare_process()
        self._context = Context()
        rclpy.init(args=[], context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self._executor.spin()

    def close(self) -> None:
        """End the thread, then the node: what the executor waits on must outlive it, and the context both."""
        self._executor.shutdown(ENDS_WITHIN_S)
        self._thread.join(ENDS_WITHIN_S)
        self.node.destroy_node()
        self._context.try_shutdown()
