"""The ROS border: everything between the rooms, which know no ROS, and the nodes, which know little else.

| module | for |
|---|---|
| `lifecycle` | `ThermalNode`, the base of all nodes, and `run`, the main function of their executables |
| `parameters` | `Schema` of `Parameter`: declares, validates, documents |
| `qos` | profiles by intent: `CAMERA_IN`, `CAMERA_OUT`, `RESULTS`, `LATCHED`, `OVERLAY`, `CLOCK` |
| `convert` | messages to and from numpy and the rooms' types |
| `diagnostics` | counters, latencies and levels on /diagnostics (every node has one: `node.diagnostics`) |
| `environment` | where files lie; the environment of every process, Fast DDS profile included |

A node's file is its parameter schema, its core object, its messages; see `lifecycle` for a whole one.
"""
