"""The ROS border: everything between the rooms, which know no ROS, and the nodes, which know little else.

| module | for |
|---|---|
| `lifecycle` | `ThermalNode`, the base of all nodes, and `run`, the main function of their executables |
| `parameters` | `Schema` of `Parameter`: declares, validates, documents |
| `qos` | profiles by intent: `CAMERA_IN`, `SENSOR_IN`, `CAMERA_OUT`, `RESULTS`, `LATCHED`, `PROBES_IN`, `OVERLAY` ... |
| `convert` | messages to and from numpy and the rooms' types |
| `places` | the same for positions, attitudes and what localization finds; the last gate before a fix leaves |
| `transforms` | map -> odom, where tf2 is installed |
| `diagnostics` | counters, latencies and levels on /diagnostics (every node has one: `node.diagnostics`) |
| `environment` | executables, and the environment of every process, Fast DDS profile included |
| `launching` | what the launch files share; needs `launch` |
| `listener` | a node in a process that is about something else, such as a benchmark |
| `shared_memory` | removes what processes that were killed left of it |
| `supervisor` | starts and ends the processes of a graph where there is no `launch` |
| `bag`, `playback` | rosbag2 recordings without a ROS installation |

A node's file is its parameter schema, its core object, its messages; see `lifecycle` for a whole one.
"""
