"""Detection and re-identification on a live camera: ros2 launch thermalreid_ros thermalreid.launch.py --show-args"""

from launch import LaunchDescription

from thermalreid_ros.ros.launching import argument, common_arguments, start

CAMERA = {"thermal/image_raw": "image_topic"}
UNITS = {"thermal_units": str, "polarity": str}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([
        *common_arguments(),
        argument("image_topic", "the camera's frames, relative to the namespace", "thermal/image_raw"),
        argument("thermal_units", "what a pixel means: centikelvin, decikelvin, optris, celsius_f32, counts or agc8"),
        argument("polarity", "how a camera that does not measure shows heat: white_hot or black_hot"),
        argument("model", "detector: name of a shipped model, or path of an .onnx file"),
        argument("probe_file", "thermal crop of the object to be found; without, probes are awaited on probe/thermal"),
        argument("probe_class", "class of the object to be found: car, person, bicycle or dog; empty: any"),
        argument("probe_units", "what a pixel of probe_file means; empty: as thermal_units"),
        start("detection", {**UNITS, "model": str}, CAMERA),
        start("reid", {**UNITS, "probe_file": str, "probe_class": str, "probe_units": str}, CAMERA),
    ])
