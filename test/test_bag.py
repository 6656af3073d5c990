"""Recordings: written and read back, cut, damaged and absent ones; the recording that is shipped."""

import errno
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader
from thermalreid_ros.files import shipped
from thermalreid_ros.ros.bag import Bag, BagError, message_types, write_bag

NIGHT = shipped("config") / "recordings" / "hit_uav_night"
TYPES = message_types().types


def image(number: int, size: int = 64):
    header = TYPES["std_msgs/msg/Header"](TYPES["builtin_interfaces/msg/Time"](number, 7), "camera")
    pixels = np.random.default_rng(number).integers(0, 256, size * size, np.uint8)
    return TYPES["sensor_msgs/msg/Image"](header, size, size, "mono8", 0, size, pixels)


def messages(count: int, size: int = 64):
    text = TYPES["std_msgs/msg/String"]
    for number in range(count):
        yield "/thermal/image_raw", 10**9 * (number + 1), image(number, size)
        yield "/note", 10**9 * (number + 1) + 1, text(f"frame {number}")


def test_a_recording_that_cannot_be_written_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(BagError, match="bag: cannot be written .File exists"):
        write_bag(tmp_path / "file" / "bag", messages(2), {})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rosbags.rosbag2.Writer.write", full)
    with pytest.raises(BagError, match="bag: cannot be written .No space left on device"):
        write_bag(tmp_path / "bag", messages(2), {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_round_trip(tmp_path: Path, storage: str):
    path = write_bag(tmp_path / "bag", messages(20), {"licence": "none"}, storage=storage)
    with Bag(path) as bag:
        assert bag.topics == {"/thermal/image_raw": "sensor_msgs/msg/Image", "/note": "std_msgs/msg/String"}
        assert (bag.count, bag.start_ns, bag.end_ns) == (40, 10**9, 20 * 10**9 + 1)
        assert bag.custom == {"licence": "none"} and bag.damage is None
        read = list(bag.messages())
        assert [m.stamp_ns for m in read] == [stamp for _, stamp, _ in messages(20)]
        for message, (topic, _, original) in zip(read, messages(20), strict=True):
            decoded = bag.decode(message)
            assert message.topic == topic and decoded.__msgtype__ == original.__msgtype__
            if topic == "/note":
                assert decoded.data == original.data
            else:
                assert decoded.header == original.header and decoded.encoding == "mono8"
                np.testing.assert_array_equal(decoded.data, original.data)
        late = list(bag.messages(["/note"], start_ns=bag.stamp_at(15.0)))
        assert [bag.decode(m).data for m in late] == [f"frame {n}" for n in range(15, 20)]
        assert list(bag.messages([])) == []
        with pytest.raises(BagError, match="offset of 60 s is beyond its 19.0 s"):
            bag.stamp_at(60.0)


def test_same_messages_give_the_same_bytes(tmp_path: Path):
    first, second = (write_bag(tmp_path / name / "bag", messages(5), {"a": "b"}) for name in ("1", "2"))
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_written_bag_is_whole_or_absent(tmp_path: Path):
    def breaks_off():
        yield from messages(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_bag(tmp_path / "bag", breaks_off(), {})
    assert list(tmp_path.iterdir()) == []
    write_bag(tmp_path / "bag", messages(1), {})
    with pytest.raises(BagError, match="exists already"):
        write_bag(tmp_path / "bag", messages(1), {})


@pytest.mark.parametrize("with_metadata", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_cut_mcap_is_read_up_to_the_cut(tmp_path: Path, share: float, with_metadata: bool):
    path = write_bag(tmp_path / "bag", messages(30, size=512), {})  # 262 kB a frame: chunks of 4 frames
    storage = path / "bag.mcap"
    whole = storage.read_bytes()
    storage.write_bytes(whole[:int(share * len(whole))])
    if not with_metadata:
        (path / "metadata.yaml").unlink()
    with Bag(path) as bag:
        read = list(bag.messages())
        assert 60 * share - 10 <= len(read) <= 60 * share  # at most one chunk less than what is there
        assert len(read) == bag.count
        of = " of 60" if with_metadata else ""
        assert bag.damage.startswith(f"{path}: the recording ends early, at message {len(read)}{of} (")
        assert "\n" not in bag.damage
        for message, (topic, stamp_ns, original) in zip(read, messages(30, size=512)):
            assert (message.topic, message.stamp_ns) == (topic, stamp_ns)
            if topic == "/thermal/image_raw":
                np.testing.assert_array_equal(bag.decode(message).data, original.data)


def test_damaged_sqlite_is_read_up_to_the_fault(tmp_path: Path):
    path = write_bag(tmp_path / "bag", messages(30, size=512), {"units": "agc8"}, storage="sqlite3")
    storage = path / "bag.db3"
    whole = storage.read_bytes()
    middle = len(whole) // 2 // 4096 * 4096  # a page's border
    storage.write_bytes(whole[:middle] + b"\xff" * (len(whole) - middle))
    with Bag(path) as bag:
        read = list(bag.messages())
        assert 20 <= len(read) <= 30 and bag.custom == {"units": "agc8"}
        assert bag.damage.startswith(f"{path}: the recording ends early, at message {len(read)} of 60 (")
        assert [bag.decode(m).data for m in read[1::2]] == [f"frame {n}" for n in range(len(read) // 2)]
    storage.write_bytes(whole[:middle])  # shorter than its head says, as a full disk leaves it
    with Bag(path) as bag:
        cut = list(bag.messages())
        assert 20 <= len(cut) <= 30 and [m.data for m in cut] == [m.data for m in read[:len(cut)]]
        assert "the recording ends early" in bag.damage


def test_a_single_file_without_its_folder(tmp_path: Path):
    for storage, name in (("mcap", "bag.mcap"), ("sqlite3", "bag.db3")):
        path = write_bag(tmp_path / storage / "bag", messages(4), {}, storage=storage)
        lone = tmp_path / name
        (path / name).rename(lone)
        with Bag(lone) as bag:
            assert bag.count == 8 and bag.damage is None
            assert bag.decode(next(bag.messages(["/note"]))).data == "frame 0"


@pytest.mark.parametrize("text", ["{", "[1]", "\udcff", 800 * "["])
def test_damaged_metadata_is_not_taken_for_a_cut(tmp_path: Path, text: str):
    path = write_bag(tmp_path / "bag", messages(4), {})
    (path / "metadata.yaml").write_text(text, errors="surrogateescape")
    with Bag(path) as bag:
        assert len(list(bag.messages())) == 8 and bag.damage.startswith(f"{path / 'metadata.yaml'}: damaged (")
        assert "ends early" not in bag.damage
    (path / "bag.mcap").write_bytes((path / "bag.mcap").read_bytes()[:-200])
    with Bag(path) as bag:  # both
        assert bag.damage.startswith(f"{path / 'metadata.yaml'}: damaged (") and bag.damage.endswith(
            f"which ends early, at message {bag.count}")


def test_refusals_are_one_line(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "noise.mcap").write_bytes(b"no mcap at all" * 100)
    (tmp_path / "picture.png").write_bytes(b"")
    for name, text in (("absent", "no such recording"), ("empty", "not a rosbag2 recording"),
                       ("noise", "nothing in this recording can be read"), ("picture.png", "not a rosbag2 recording")):
        with pytest.raises(BagError, match=text) as error:
            Bag(tmp_path / name)
        assert str(error.value).startswith(str(tmp_path / name)) and "\n" not in str(error.value)


def test_undefined_types_and_short_bytes_are_refused(tmp_path: Path):
    with Bag(write_bag(tmp_path / "bag", messages(1), {})) as bag:
        message = next(bag.messages(["/thermal/image_raw"]))
        with pytest.raises(BagError, match="which the recording does not define"):
            bag.decode(type(message)("/x", "foo_msgs/msg/Bar", 1, message.data))
        with pytest.raises(BagError, match="not a whole sensor_msgs/msg/Image"):
            bag.decode(type(message)(message.topic, message.type_name, 1, message.data[:50]))


def test_type_hashes_are_those_of_the_installed_messages():
    """Else a ROS machine would refuse to play the bag into our nodes."""
    import json

    from thermalreid_ros.ros.environment import install_prefix

    file = install_prefix() / "share" / "thermalreid_ros" / "msg" / "DetectionArray.json"
    hashes = {entry["type_name"]: entry["hash_string"] for entry in json.loads(file.read_text())["type_hashes"]}
    for name in ("thermalreid_ros/msg/DetectionArray", "thermalreid_ros/msg/Detection"):
        assert message_types().hash_rihs01(name) == hashes[name]


def test_shipped_recording_opens_in_two_other_readers():
    with Reader(NIGHT) as reader, (NIGHT / "hit_uav_night.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
        assert reader.message_count == summary.statistics.message_count == 5 * 16
        assert {c.topic for c in summary.channels.values()} == {c.topic for c in reader.connections}
        mcap_bytes = [m.data for _, _, m in make_reader(file).iter_messages(topics=["/truth/detections"])]
        rosbags_bytes = [bytes(data) for _, _, data in reader.messages(
            [c for c in reader.connections if c.topic == "/truth/detections"])]
        assert mcap_bytes == rosbags_bytes
