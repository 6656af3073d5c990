"""The tables for autopilots speak of fields that our messages have."""

import re

import pytest
import yaml
from geometry_msgs.msg import PoseWithCovarianceStamped
from sensor_msgs.msg import NavSatFix

from thermalreid_ros.files import shipped

OURS = {"localization/fix": NavSatFix, "localization/pose": PoseWithCovarianceStamped}
TABLES = ("px4_aux_global_position.yaml", "mavros_gps_input.yaml")
IGNORED = {"altitude": 1, "HDOP": 2, "VDOP": 4, "horizontal velocity": 8, "vertical velocity": 16, "speed accuracy": 32,
           "vertical accuracy": 128}  # of MAVLink's GPS_INPUT_IGNORE_FLAGS; 64 is the horizontal accuracy


def messages(name: str) -> list[dict]:
    return yaml.safe_load((shipped("config") / name).read_text())["messages"]


@pytest.mark.parametrize("name", TABLES)
def test_every_source_is_a_field_of_ours(name):
    for message in messages(name):
        assert message["type"].count("/msg/") == 1 and message["fields"]
        for field, source in message["fields"].items():
            assert ("from" in source) != ("value" in source), field
            if "from" in source:
                topic, path = source["from"].split(" ")
                found = OURS[topic]()
                for part in path.split("."):
                    found = getattr(found, part)


@pytest.mark.parametrize("name", TABLES)
def test_what_an_autopilot_flies_on_is_of_the_time_of_capture(name):
    for message in messages(name):
        stamps = [source["from"] for field, source in message["fields"].items() if
                  field in ("timestamp_sample", "header.stamp")]
        assert len(stamps) == 1 and re.fullmatch(r"localization/(fix|pose) header\.stamp", stamps[0])


def test_gps_input_ignores_all_but_the_horizontal_position():
    assert int(messages("mavros_gps_input.yaml")[0]["fields"]["ignore_flags"]["value"]) == sum(IGNORED.values())
