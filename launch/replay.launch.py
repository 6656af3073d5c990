"""The same nodes on a recording: ros2 launch thermalreid_ros replay.launch.py bag:=PATH"""

from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription, Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PythonExpression

from thermalreid_ros.files import shipped
from thermalreid_ros.ros.launching import argument, start


def generate_launch_description() -> LaunchDescription:
    live = PythonLaunchDescriptionSource(str(shipped("launch") / "thermalreid.launch.py"))
    return LaunchDescription([
        argument("bag", "the recording: a rosbag2 folder, or one .mcap or .db3 file"),
        argument("rate", "speed; 2.0: twice as fast as recorded"),
        argument("loop", "whether it starts over at its end, instead of ending all", choices=("", "true", "false")),
        argument("start_offset_s", "seconds of its beginning that are left out"),
        argument("decompress", "whether compressed frames are played as sensor_msgs/Image", "true", ("true", "false")),
        argument("wait_for_subscribers", "of the frames, before it starts; by default one for each node",
                 PythonExpression(["3 if '", LaunchConfiguration("map", default=""), "' else 2"])),
        # On the ground a node that cannot start, for a wrong path say, is to be put right by hand.
        IncludeLaunchDescription(live, launch_arguments={
            "use_sim_time": "true", "respawn": LaunchConfiguration("respawn", default="false")}.items()),
        start("bag_player", {"bag": str, "rate": float, "loop": bool, "start_offset_s": float, "decompress": bool,
                             "wait_for_subscribers": int},
              on_exit=Shutdown(reason="the recording has ended")),
    ])
