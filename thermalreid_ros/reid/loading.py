"""A Reidentifier from the names of its files, as the node and the command line are given them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from thermalreid_ros.camera.thermal import ThermalUnits
from thermalreid_ros.engine import DEFAULT_PROVIDERS, load_engine
from thermalreid_ros.engine.engine import shipped_models
from thermalreid_ros.reid.calibration import load_beta_h
from thermalreid_ros.reid.embedding import IN_FLIGHT, Embedder
from thermalreid_ros.reid.fusion import FusedModel
from thermalreid_ros.reid.gallery import Gallery
from thermalreid_ros.reid.photograph_length import LengthTeller
from thermalreid_ros.reid.reidentifier import EMBEDDING, FUSED, SIGNATURE, Reidentifier
from thermalreid_ros.reid.signature import CELSIUS, scale_for

EMBEDDING_MODEL, LENGTH_MODEL = "reid_embedding", "photograph_length"


def load_reidentifier(units: ThermalUnits | str, *, method: str = "", embedding: str = EMBEDDING_MODEL,
                      calibration: str = "", fusion: str = "", providers: Sequence[str] = DEFAULT_PROVIDERS,
                      threads: int = 0, log: Callable[[str], None] = lambda line: None,
                      ) -> tuple[Reidentifier, dict[str, str]]:
    """The object and what there is to say of it, by key.

    method: "" is fused where the embedding is there, else thermal_signature. embedding: of cameras that measure
    temperatures alone; where the shipped one was taken away it is done without, unless the method is
    cross_modal_embedding. calibration, fusion: "" for the shipped files. Raises ThermalReidError.
    """
    if scale_for(units) is not CELSIUS:
        embedder, told = None, "none: the camera does not measure temperatures"
    else:
        embedder, told = load_embedder(embedding, needed=method == EMBEDDING, providers=providers, threads=threads,
                                       log=log)
    method = method or (SIGNATURE if embedder is None else FUSED)
    reid = Reidentifier(units, Gallery(load_beta_h(calibration or None)), method=method,
                        fusion=FusedModel.load(fusion or None), embedder=embedder)
    return reid, {"method": method, "embedding": told, "beta_h": f"{reid.gallery.beta_h:g}"}


def load_embedder(model: str, *, needed: bool = False, providers: Sequence[str] = DEFAULT_PROVIDERS, threads: int = 0,
                  log: Callable[[str], None] = lambda line: None) -> tuple[Embedder | None, str]:
    """(the embedding, what there is to say of it); None where no name is given, or the shipped model was taken away and
    it is not needed. Raises EngineError."""
    if fault := "" if needed and model else why_none(model, EMBEDDING_MODEL):
        return None, fault
    engine = load_engine(model, providers=providers, threads=threads, log=log)
    embedder = Embedder(engine, IN_FLIGHT)
    embedder.warm_up()
    return embedder, f"{engine.card.name} on {engine.provider}"


def load_length_teller(model: str, *, providers: Sequence[str] = DEFAULT_PROVIDERS, threads: int = 0,
                       log: Callable[[str], None] = lambda line: None) -> tuple[LengthTeller | None, str]:
    """(what tells lengths by photographs, what there is to say of it); None where no name is given or the shipped model
    was taken away. Raises EngineError."""
    if fault := why_none(model, LENGTH_MODEL):
        return None, fault
    engine = load_engine(model, providers=providers, threads=threads, log=log)
    return LengthTeller(engine), f"{engine.card.name} on {engine.provider}"


def why_none(model: str, *usual: str) -> str:
    """Why a usual model, which may be done without, is not there; "" where it is, and for any other name: who gave
    one wants that model."""
    if not model:
        return "none is given"
    return f"none: no model '{model}'" if model in usual and model not in shipped_models() else ""
