"""The parameter schema, its use by the nodes, the shipped parameter file and the table in docs."""

import math

import pytest
import yaml
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters

from thermalreid_ros.nodes.__main__ import GENERATED, NODES
from thermalreid_ros.ros.lifecycle import COMMON_PARAMETERS
from thermalreid_ros.ros.parameters import Parameter, Schema, in_file, owners

SHARE = Parameter("share", 0.5, "a share", minimum=0.0, maximum=1.0)
COUNT = Parameter("count", 3, "a count", unit="frames", minimum=1)
NAMES = Parameter("names", ("a", "b"), "some names", choices=("a", "b", "c"))


@pytest.mark.parametrize(("parameter", "value", "fault"), [
    (SHARE, 1.0, None), (SHARE, 0.0, None), (COUNT, 10**9, None), (NAMES, ["c"], None), (NAMES, [], None),
    (SHARE, 1.5, "parameter 'share' is 1.5: it must be 0.0 to 1.0"),
    (SHARE, 1, "parameter 'share' is 1: it must be a double, e.g. 2.0"),
    (SHARE, True, "parameter 'share' is True: it must be a double, e.g. 2.0"),
    (SHARE, math.nan, "parameter 'share' is nan: it must be finite"),
    (SHARE, "0.5", "parameter 'share' is '0.5': it must be a double, e.g. 2.0"),
    (COUNT, 0, "parameter 'count' is 0: it must be at least 1 frames"),
    (COUNT, 2.0, "parameter 'count' is 2.0: it must be a integer, e.g. 2"),
    (NAMES, ["a", "d"], "parameter 'names' is 'd': it must be one of a, b, c"),
    (NAMES, "a", "parameter 'names' is 'a': it must be a list of strings, e.g. ['one', 'two']"),
    (NAMES, [1], "parameter 'names' is [1]: it must be a list of strings, e.g. ['one', 'two']"),
])
def test_faults_name_parameter_value_and_remedy(parameter, value, fault):
    assert parameter.fault(value) == fault


@given(st.floats(), st.floats(-10, 10), st.floats(0, 20))
def test_a_range_lets_exactly_its_values_pass(value, minimum, width):
    parameter = Parameter("x", minimum, "", minimum=minimum, maximum=minimum + width)
    assert (parameter.fault(value) is None) == (minimum <= value <= minimum + width)


def test_a_schema_cannot_be_wrong_in_itself():
    with pytest.raises(ValueError, match="default of parameter 'x' is 2.0"):
        Parameter("x", 2.0, "", maximum=1.0)
    with pytest.raises(ValueError, match="no identifier"):
        Parameter("tracks.age", 2.0, "")
    with pytest.raises(ValueError, match="twice"):
        Schema(SHARE, SHARE)


def test_the_nearest_name_is_offered():
    assert Schema(SHARE, COUNT).unknown("shar") == "there is no parameter 'shar': did you mean 'share'?"
    assert Schema(SHARE, COUNT).unknown("xyz") == "there is no parameter 'xyz'; docs/parameters.md lists all"


def test_what_other_nodes_know_is_known():
    assert set(owners("thermal_units")) == {"detection", "geo_localization", "reid"} and owners("no_such") == ()


def test_descriptors_tell_other_tools():
    share, count, names = SHARE.descriptor(), COUNT.descriptor(), NAMES.descriptor()
    assert (share.type, share.floating_point_range[0].from_value, share.floating_point_range[0].to_value) == \
        (ParameterType.PARAMETER_DOUBLE, 0.0, 1.0)
    assert (count.integer_range[0].from_value, count.integer_range[0].to_value) == (1, 2**63 - 1)
    assert count.description == "a count [frames]"
    assert names.type == ParameterType.PARAMETER_STRING_ARRAY and names.additional_constraints == "one of a, b, c"


@pytest.mark.parametrize("path", GENERATED)
def test_generated_files_are_up_to_date(path):
    assert (REPOSITORY / path).read_text() == GENERATED[path](), "run `make docs`"


def test_the_shipped_parameter_file_shows_what_can_be_set_and_changes_nothing():
    content = yaml.safe_load((REPOSITORY / "config" / "thermalreid.yaml").read_text())
    assert set(content) == {f"/**/{node.NAME}" for node in NODES}
    for node in NODES:
        schema, values = node.PARAMETERS + COMMON_PARAMETERS, content[f"/**/{node.NAME}"]["ros__parameters"]
        assert set(values) == {parameter.name for parameter in schema}
        for parameter in schema:
            value = values[parameter.name]
            assert parameter.fault(value) is None
            assert (tuple(value) if isinstance(value, list) else value) == parameter.default, parameter.name


def test_the_shipped_parameter_file_is_taken_by_nodes_of_any_namespace(graph, start_node, tmp_path):
    shipped = (REPOSITORY / "config" / "thermalreid.yaml").read_text()
    (tmp_path / "parameters.yaml").write_text(shipped.replace("autostart: true", "autostart: false"))
    for namespace in ("", "/fleet/uav1"):
        node = start_node("bag_player", "-r", f"__ns:={namespace or '/'}", "--params-file",
                          str(tmp_path / "parameters.yaml"))
        request = GetParameters.Request(names=["autostart"])
        values = graph.call(GetParameters, f"{namespace}/bag_player/get_parameters", request).values
        assert [value.bool_value for value in values] == [False]
        assert node.stop() == 0 and "[FATAL]" not in node.output


@pytest.mark.parametrize(("text", "value"), [
    ("/**/geo_localization: {ros__parameters: {map: a.tif}}", "a.tif"),
    ("/uav1/geo_localization: {ros__parameters: {map: a.tif}}", "a.tif"),
    ("geo_localization: {ros__parameters: {map: a.tif}}", "a.tif"),
    ("uav1: {geo_localization: {ros__parameters: {map: a.tif}}}", "a.tif"),
    ("/**: {ros__parameters: {map: a.tif}}", "a.tif"),
    ("/**: {ros__parameters: {use_sim_time: true}}\n/**/geo_localization: {ros__parameters: {map: a.tif}}", "a.tif"),
    ("/**/geo_localization: {ros__parameters: {map: \"\"}}", ""),
    ("/**/reid: {ros__parameters: {map: a.tif}}", None), ("/**/geo_localization: {ros__parameters: {}}", None),
    ("/**/geo_localization:", None), ("- a list", None), ("", None), ("{", None)])
def test_what_a_parameter_file_says_of_a_node(tmp_path, text, value):
    path = tmp_path / "parameters.yaml"
    path.write_text(text)
    assert in_file(path, "geo_localization", "map") == value
    assert in_file(tmp_path / "absent.yaml", "geo_localization", "map") is None
