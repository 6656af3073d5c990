"""The tables for autopilots speak of fields that our messages have."""

import re

import pytest
import yaml
from conftest import REPOSITORY
from geometry_msgs.msg import PoseWithCovarianceStamped
from sensor_msgs.msg import NavSatFix

from thermalreid_ros.files import shipped

OURS = {"localization/fix": NavSatFix, "localization/pose": PoseWithCovarianceStamped}
TABLES = ("px4_aux_global_position.yaml", "mavros_gps_input.yaml")
PAGE = (REPOSITORY / "docs" / "autopilots.md").read_text()
IGNORED = {"altitude": 1, "VDOP": 4, "horizontal velocity": 8, "vertical velocity": 16, "speed accuracy": 32,
           "vertical accuracy": 128}  # of MAVLink's GPS_INPUT_IGNORE_FLAGS; 2 is HDOP, 64 the horizontal accuracy


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


def test_ardupilot_uses_what_it_is_given():
    """EKF3's readGpsData leaves fixes below 3D unread, calcGpsGoodToAlign refuses an HDOP above 2.5 (none: 99.99)."""
    fields = messages("mavros_gps_input.yaml")[0]["fields"]
    assert int(fields["fix_type"]["value"]) >= 3 and 0.0 < float(fields["hdop"]["value"]) < 1.4
    rules = " ".join(yaml.safe_load((shipped("config") / "mavros_gps_input.yaml").read_text())["rules"])
    for parameter in ("EK3_SRC1_VELXY", "EK3_SRC1_VELZ", "EK3_SRC1_POSZ"):
        assert parameter in rules and parameter in PAGE


def test_the_page_says_what_the_tables_say():
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+)", PAGE.partition("## ArduPilot")[2], re.MULTILINE))
    fields = messages("mavros_gps_input.yaml")[0]["fields"]
    assert set(rows) >= {"fix_type", "hdop", "ignore_flags"}
    assert rows == {name: fields[name]["value"] for name in rows}
