"""What the launch files share; the only module that needs `launch`, which a ROS installation brings.

A launch argument left empty means: as in the parameter file. So the file that an operator gives is not silently
overruled by an argument's default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from launch import LaunchContext
from launch.action import Action
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.some_substitutions_type import SomeSubstitutionsType
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from thermalreid_ros.files import shipped
from thermalreid_ros.ros.environment import PACKAGE, process_environment
from thermalreid_ros.ros.parameters import in_file

_BOOLEAN = ("", "true", "false")
_TRANSFORMS = [("/tf", "tf"), ("/tf_static", "tf_static")]  # a vehicle's own, in its namespace
_EVERY_NODE = {"autostart": bool, "use_sim_time": bool}  # launch arguments that are parameters of the same name


def argument(name: str, description: str, default: SomeSubstitutionsType = "",
             choices: Sequence[str] | None = None) -> Action:
    """A launch argument; empty by default."""
    return DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)


def common_arguments() -> list[Action]:
    """Arguments that hold for all nodes, and the environment that all processes need."""
    changed = {name: value for name, value in process_environment({}).items() if name.endswith("_PROFILES_FILE")}
    return [
        argument("namespace", "namespace of all nodes and topics, e.g. uav1"),
        argument("params_file", "parameters of the nodes", str(shipped("config") / "thermalreid.yaml")),
        argument("autostart", "whether nodes configure and activate themselves", choices=_BOOLEAN),
        argument("use_sim_time", "whether nodes take their time from /clock", choices=_BOOLEAN),
        argument("respawn", "whether a node that dies is started again, after a second, as often as it takes", "true",
                 ("true", "false")),
        argument("log_level", "of the nodes", "info", ("debug", "info", "warn", "error", "fatal")),
        OpaqueFunction(function=lambda context: [
            SetEnvironmentVariable(name, value) for name, value in changed.items()
            if not any(variable in context.environment for variable in changed)]),  # the user's own profile stays
    ]


def start(executable: str, given: Mapping[str, type], remappings: Mapping[str, str] | None = None,
          on_exit: Action | None = None, *, renamed: Mapping[str, str] | None = None, needs: str = "") -> Action:
    """Start a node with the arguments that were given.

    given: launch arguments that are parameters of the same name, with their types (list: of the one text given);
    renamed: where the parameter's name is another one. remappings: topic to the launch argument that renames it.
    on_exit: what follows its end. needs: launch argument without which, and without a parameter of the same name in the
    parameter file, the node is not started.
    """

    def node(context: LaunchContext) -> list[Action]:
        if needs and not (LaunchConfiguration(needs).perform(context) or in_file(
                LaunchConfiguration("params_file").perform(context), executable, needs)):
            return []
        values = {(renamed or {}).get(name, name): [text] if kind is list else
                  ParameterValue(LaunchConfiguration(name), value_type=kind)
                  for name, kind in {**given, **_EVERY_NODE}.items()
                  if (text := LaunchConfiguration(name).perform(context))}
        return [Node(
            package=PACKAGE, executable=executable, namespace=LaunchConfiguration("namespace"), output="screen",
            parameters=[LaunchConfiguration("params_file"), values],
            remappings=[*_TRANSFORMS, *((topic, LaunchConfiguration(name))
                                        for topic, name in (remappings or {}).items())],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            respawn=LaunchConfiguration("respawn") if on_exit is None else False, respawn_delay=1.0,
            on_exit=on_exit)]

    return OpaqueFunction(function=node)
