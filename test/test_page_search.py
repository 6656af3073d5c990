"""The page's part about a search: what it says is what was found."""

import re

import numpy as np
import pytest

from thermalreid_ros.detection.types import Detection
from thermalreid_ros.evaluation.page_search import search_section
from thermalreid_ros.evaluation.search import Search, SearchFrame
from thermalreid_ros.files import shipped
from thermalreid_ros.maps.store import SemanticMap
from thermalreid_ros.reid.gallery import Match
from thermalreid_ros.reid.reidentifier import Ranking
from thermalreid_ros.reid.signature import SignatureDistance
from thermalreid_ros.reid.target import Target

TRUE, OTHER = Detection(0, 0.9, 100.0, 100.0, 130.0, 120.0), Detection(0, 0.8, 300.0, 200.0, 330.0, 220.0)


def match(rank: int, box: Detection, probability: float, accepted: bool) -> Match:
    return Match(rank, 10 + rank, 4, box, rank, SignatureDistance(0.3, 0.4, 0.2), 1.0 - probability, 0.5, 4.6,
                 probability, accepted)


def found(semantic_map: SemanticMap, *, accepted: bool = True) -> Search:
    rng, place = np.random.default_rng(1), np.array((600.0, 500.0))
    grey = rng.integers(0, 255, (256, 320)).astype(np.uint8)
    latitude, longitude = map(float, semantic_map.grid.to_geographic(*place))
    target = Target(1, place, latitude, longitude, np.diag((4.0, 1.0)), 3, 4.6)
    matches = (match(1, TRUE, 0.83, accepted), match(2, OTHER, 0.07, False))
    frame = SearchFrame(grey, Ranking("p", "fused", matches), TRUE, target, place + (1.0, 0.0))
    unseen = SearchFrame(grey, Ranking("p", "fused", ()), None, None, None)
    return Search("a <green> van", rng.integers(0, 255, (90, 120, 3)).astype(np.uint8), (10.0, 20.0, 60.0, 50.0),
                  tuple(rng.normal(20, 4, (20, 30)).astype(np.float32) for _ in range(3)), 0.5, (unseen, frame, unseen))


@pytest.mark.parametrize("accepted", [True, False])
def test_the_page_says_what_was_found(accepted):
    with SemanticMap.open(shipped("config") / "maps" / "krems.tif") as semantic_map:
        search = found(semantic_map, accepted=accepted)
        text = search_section(search, semantic_map.grid, semantic_map, photographed="by day", flown="by night")
    assert search.shown == 1 and "a &lt;green&gt; van" in text and "$" not in re.sub(r"base64,[^\"]*", "", text)
    assert text.count("<figcaption>probe") == 3 and "83%" in text and "frame 2 of 3" in text.lower()
    assert "The object is ranked 1." in text and ("is accepted with 83%" in text) == accepted
    assert "<ellipse" in text and ("stroke-dasharray=\"7 5\"" in text) != accepted and ("1.0 m</b>" in text) == accepted
    assert 'class="true' in text and not re.search(r"(?:src|href)=[\"']?https?:", text)
