"""Localization, detection, probe synthesis and re-identification on a live camera.

ros2 launch thermalreid_ros thermalreid.launch.py --show-args
"""

from launch import LaunchDescription

from thermalreid_ros.ros.launching import argument, common_arguments, start

CAMERA = {"thermal/image_raw": "image_topic"}
PLACE = {**CAMERA, "thermal/camera_info": "camera_info_topic", "imu/data": "imu_topic", "odom": "odom_topic",
         "altitude": "altitude_topic", "prior/fix": "prior_topic"}
UNITS = {"thermal_units": str, "polarity": str}
LENGTH = {"probe_length_m": float, "probe_length_error": float}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([
        *common_arguments(),
        argument("image_topic", "the camera's frames, relative to the namespace", "thermal/image_raw"),
        argument("thermal_units", "what a pixel means: centikelvin, decikelvin, optris, celsius_f32, counts or agc8"),
        argument("polarity", "how a camera that does not measure shows heat: white_hot or black_hot"),
        argument("model", "detector: name of a shipped model, or path of an .onnx file"),
        argument("semantics", "what tells the detector of the ground: none, predicted or, with a map and a fix, map"),
        argument("semantics_wait_s", "seconds after which a frame is detected without"),
        argument("perspective", "whether detections are weighed by how large things look, while localization/view "
                 "tells from where"),
        argument("map", "semantic map, a GeoTIFF of `thermalreid map build`; without, and without one in "
                 "params_file, nothing is located"),
        argument("segmenter", "model of the localization: name of a shipped one, or path of an .onnx file"),
        argument("camera_info_topic", "the camera's calibration", "thermal/camera_info"),
        argument("imu_topic", "attitude in true east, north, up (sensor_msgs/Imu)", "imu/data"),
        argument("odom_topic", "dead reckoning, x axis to the east (nav_msgs/Odometry)", "odom"),
        argument("altitude_topic", "height above the ground (sensor_msgs/Range)", "altitude"),
        argument("prior_topic", "rough position (sensor_msgs/NavSatFix)", "prior/fix"),
        argument("camera_roll_deg", "how the camera is turned in the axes of the IMU"),
        argument("camera_pitch_deg", "likewise; 90: straight down from an IMU that lies level"),
        argument("camera_yaw_deg", "likewise"),
        argument("probe_file", "thermal crop of the object to be found; without, probes are awaited on probe/thermal"),
        argument("probe_class", "class of the object to be found: car, person, bicycle or dog; empty: any, or as its "
                 "photograph is recognised"),
        argument("probe_length_m", "its longest side, where that is known: fused then goes by the size seen, too"),
        argument("probe_length_error", "by which share of it that may be off, a standard deviation"),
        argument("probe_units", "what a pixel of probe_file means; empty: as thermal_units"),
        argument("probe_photo", "colour photograph of the object to be found, of which thermal probes are made; "
                 "without, photographs are awaited on probe/image"),
        argument("method", "how tracks are ranked: thermal_signature, cross_modal_embedding or fused"),
        argument("synthesis", "model of the probe synthesis: name of a shipped one, or path of an .onnx file"),
        argument("air_c", "temperature of the air, for probes made of a photograph"),
        start("geo_localization", {**UNITS, "map": str, "segmenter": str, "camera_roll_deg": float,
                                   "camera_pitch_deg": float, "camera_yaw_deg": float}, PLACE,
              renamed={"segmenter": "model"}, needs="map"),
        start("detection", {**UNITS, "model": str, "semantics": str, "semantics_wait_s": float, "perspective": bool},
              {**CAMERA, "thermal/camera_info": "camera_info_topic"}),
        start("probe_synthesis", {"probe_photo": list, "probe_class": str, **LENGTH, "synthesis": str, "air_c": float},
              {"prior/fix": "prior_topic"}, renamed={"probe_photo": "probe_files", "synthesis": "model"}),
        start("reid", {**UNITS, "probe_file": str, "probe_class": str, **LENGTH, "probe_units": str, "method": str,
                       "map": str},
              {**CAMERA, "thermal/camera_info": "camera_info_topic"}),
    ])
