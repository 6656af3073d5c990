"""All that is measured between the photographs and the thermal pictures of re-identification sets, each pair once.

As in flight: of a photograph, its box and class given, thermal probes are made for the hour and the weather of each
session of the gallery, and compared with that session's pictures. Rankings, fits and ablations then only choose among
these numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thermalreid_ros.camera.crops import CropError, square_crop
from thermalreid_ros.detection.types import CLASS_NAMES, Detection
from thermalreid_ros.errors import ThermalReidError
from thermalreid_ros.evaluation.reid_sets import Picture, ReidSets
from thermalreid_ros.reid.embedding import Embedder
from thermalreid_ros.reid.fusion import PairTerms, pooled, probe_descriptor
from thermalreid_ros.reid.length import ToldLength
from thermalreid_ros.reid.photograph_length import LengthTeller
from thermalreid_ros.reid.signature import (
    CELSIUS,
    GREY,
    SignatureError,
    ThermalSignature,
    ValueScale,
    compute_signature,
    crop_box,
)
from thermalreid_ros.reid.signature_table import SignatureTable, histogram_distances, mser_distances
from thermalreid_ros.synthesis import ProbeSynthesizer, SynthesisError

PROBES_EACH = 5
#: Thermal pictures taken within so many hours of a photograph's hour of the day are not in its gallery.
LEAST_HOURS_APART = 1.0

Progress = Callable[..., Iterable]


@dataclass(frozen=True, eq=False)
class SignatureTerms:
    """Of Eq. (1) between P photographs' K probes and G thermal pictures: float32 (P, G, K), NaN where no probe could be
    made."""

    histogram: np.ndarray
    mser: np.ndarray


@dataclass(frozen=True, eq=False)
class EmbeddingTerms:
    """Unit vectors of D. photographs: float32 (P, D). probes: (P, S, D), pooled over those made for a session, NaN
    where none could be made; None without a synthesis. gallery: (G, D). classes: (G, C), probabilities."""

    photographs: np.ndarray
    probes: np.ndarray | None
    gallery: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True, eq=False)
class SetTerms:
    """photographs, gallery: the pictures that were of use, P and G of them; left_out: why others were not, a line each.

    signatures: by synthesis model. grey: between grey values of both, no synthesis. embedding: None without the model.
    baselines: (P, G) distances by name, None without the model. views: (G, 4), of the thermal pictures, as
    fusion.view_features takes them. lengths: of the P photographs' objects, as these tell them; None without the model.
    """

    photographs: tuple[Picture, ...]
    gallery: tuple[Picture, ...]
    left_out: tuple[str, ...]
    signatures: Mapping[str, SignatureTerms]
    grey: SignatureTerms
    embedding: EmbeddingTerms | None
    baselines: Mapping[str, np.ndarray | None]
    views: np.ndarray
    lengths: tuple[ToldLength | None, ...] | None = None

    @property
    def identity(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the identities (P,), (G,), in the order of their names."""
        names = np.unique([picture.identity for picture in self.gallery])
        return tuple(np.searchsorted(names, [picture.identity for picture in pictures])
                     for pictures in (self.photographs, self.gallery))

    @property
    def label(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices into CLASS_NAMES (P,), (G,)."""
        return tuple(np.array([CLASS_NAMES.index(picture.class_name) for picture in pictures])
                     for pictures in (self.photographs, self.gallery))

    @property
    def session(self) -> np.ndarray:
        """Numbers of the gallery's sessions (G,)."""
        return np.unique([picture.session for picture in self.gallery], return_inverse=True)[1]

    @property
    def allowed(self) -> np.ndarray:
        """bool (P, G), pictures of other hours of the day than the photograph's."""
        hours = [np.array([picture.hour for picture in pictures]) for pictures in (self.photographs, self.gallery)]
        apart = np.abs(hours[0][:, None] - hours[1]) % 24.0
        return np.minimum(apart, 24.0 - apart) >= LEAST_HOURS_APART


@dataclass(frozen=True)
class Models:
    """What the terms are made with. synthesizers: by name; the embedding sees the probes of the one called `shown`.
    teller: of lengths by photographs."""

    synthesizers: Mapping[str, ProbeSynthesizer]
    shown: str
    embedder: Embedder | None = None
    baselines: Mapping[str, Embedder | None] = ()
    teller: LengthTeller | None = None


def gather(sets: ReidSets, models: Models, progress: Progress = lambda items, **_: items) -> SetTerms:
    """All terms. Raises ThermalReidError where a picture is damaged, or too few are of use.

    progress: called with a sequence, its description and unit, returns an iterable of it.
    """
    left_out: list[str] = []
    gallery = _Gallery(sets.gallery, models, left_out, progress)
    there = {picture.identity for picture in gallery.pictures}
    searched = [picture for picture in sets.photographs if picture.identity in there]
    if lost := len(sets.photographs) - len(searched):
        left_out.append(f"{lost} photographs of identities of which no thermal picture can be used")
    photographs = _Photographs(searched, gallery, models, left_out, progress)
    if len({picture.identity for picture in gallery.pictures} & {p.identity for p in photographs.pictures}) < 2:
        raise ThermalReidError(f"{', '.join(sets.names)}: of too few identities both a photograph and a thermal "
                               f"picture can be used; the first fault: {left_out[0]}")
    embedding = None
    if models.embedder is not None:
        embedding = EmbeddingTerms(photographs.descriptors["own"], photographs.probe_descriptors,
                                   gallery.descriptors["own"], gallery.classes)
    baselines = {name: None if embedder is None else
                 1.0 - photographs.descriptors[name] @ gallery.descriptors[name].T
                 for name, embedder in dict(models.baselines).items()}
    return SetTerms(tuple(photographs.pictures), tuple(gallery.pictures), tuple(left_out), photographs.signatures,
                    photographs.grey, embedding, baselines, np.stack([picture.view for picture in gallery.pictures]),
                    None if models.teller is None else tuple(photographs.lengths))


class Evidence:
    """The terms of reid.fusion between photographs and candidates, of chosen models.

    synthesis: whose signatures; "" compares grey values. beta_h: weight in Eq. (1), by which the most alike picture of
    a track is chosen. synthetic_share: of the thermal probes in the probe's descriptor. expected_size: (P,), of the
    photographs' objects. seen_size: (C, G), of the thermal pictures, were they of each class. length_ratio: of a
    photograph's number and sizes seen, FusedModel.length_ratio; None: no length is told.
    """

    def __init__(self, terms: SetTerms, synthesis: str, beta_h: float, synthetic_share: float,
                 expected_size: np.ndarray, seen_size: np.ndarray,
                 length_ratio: Callable[[int, np.ndarray], np.ndarray] | None = None):
        self.terms, self.beta_h = terms, beta_h
        self._signatures = terms.signatures[synthesis] if synthesis else terms.grey
        self._expected, self._seen, self._length_ratio = expected_size, seen_size, length_ratio
        self._labels = terms.label[0]
        self._session = terms.session
        self._known: dict[tuple[int, bytes], PairTerms] = {}
        if terms.embedding is not None:
            # (P, S, D), what is compared with the pictures of each session.
            self._probes = self._mixed(terms.embedding, int(self._session.max()) + 1, synthetic_share)

    def of(self, photograph: int, pictures: np.ndarray) -> PairTerms:
        """Of I candidates, pictures: (I, N), numbers of the N thermal pictures of each, pooled as a track's are."""
        key = photograph, pictures.shape, pictures.tobytes()
        if key not in self._known:
            self._known[key] = self._measured(photograph, pictures)
        return self._known[key]

    def _measured(self, photograph: int, pictures: np.ndarray) -> PairTerms:
        histogram, mser = self._pooled_signature(photograph, pictures)
        embedding, class_probability = np.full((2, len(pictures)), np.nan, np.float32)
        own = self.terms.embedding
        if own is not None:
            # The mean of the products, as fusion.pooled has it.
            embedding = 1.0 - np.einsum("ind,ind->i", own.gallery[pictures],
                                        self._probes[photograph][self._session[pictures]]) / pictures.shape[1]
            class_probability = own.classes[pictures, self._labels[photograph]].mean(axis=1)
        seen = self._seen[self._labels[photograph], pictures].mean(axis=1)
        return PairTerms(histogram, mser, embedding, class_probability, seen - self._expected[photograph],
                         None if self._length_ratio is None else self._length_ratio(photograph, seen))

    def _pooled_signature(self, photograph: int, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        histogram = self._signatures.histogram[photograph][pictures]  # (I, N, K)
        mser = self._signatures.mser[photograph][pictures]
        total = self.beta_h * histogram + (1.0 - self.beta_h) * mser
        best = np.argmin(np.where(np.isfinite(total), total, np.inf), axis=1)[:, None]
        made = np.isfinite(total).any(axis=(0, 1))
        if not made.any():
            return np.full((2, len(pictures)), np.nan, np.float32)
        return tuple(np.take_along_axis(part, best, axis=1)[:, 0, made].mean(axis=1) for part in (histogram, mser))

    @staticmethod
    def _mixed(own: EmbeddingTerms, sessions: int, synthetic_share: float) -> np.ndarray:
        return np.stack([[probe_descriptor(photograph, None if own.probes is None else own.probes[number, session],
                                           synthetic_share) for session in range(sessions)]
                         for number, photograph in enumerate(own.photographs)])


class _Gallery:
    def __init__(self, pictures: Sequence[Picture], models: Models, left_out: list[str], progress: Progress):
        self.pictures: list[Picture] = []
        signatures: dict[str, list[ThermalSignature]] = {"celsius": [], "grey": []}
        embedders = _embedders(models)
        squares: dict[str, list[np.ndarray]] = {name: [] for name in embedders}
        for picture in progress(pictures, description="gallery", unit="picture"):
            frame = picture.thermal()
            try:
                own = {name: embedder.thermal_squares(frame.values(), [picture.box])[0]
                       for name, embedder in embedders.items()}
                celsius = _signature(frame.values(), picture, CELSIUS)
                grey = _signature(frame.gray8().astype(np.float32), picture, GREY)
            except (SignatureError, CropError) as error:
                left_out.append(f"{picture.path}: {error}")
                continue
            self.pictures.append(picture)
            signatures["celsius"].append(celsius)
            signatures["grey"].append(grey)
            for name, square in own.items():
                squares[name].append(square)
        if not self.pictures:
            raise ThermalReidError(left_out[0] if left_out else "the gallery is empty")
        self.celsius, self.grey = (SignatureTable.of(part) for part in signatures.values())
        described = {name: embedder.describe(np.stack(squares[name])) for name, embedder in embedders.items()}
        self.descriptors = {name: vectors for name, (vectors, _) in described.items()}
        self.classes = None
        if models.embedder is not None:
            order = [models.embedder.engine.card.classes.index(name) for name in CLASS_NAMES]
            self.classes = described["own"][1][:, order]
        names, self.session = np.unique([picture.session for picture in self.pictures], return_inverse=True)
        self.conditions = [self.pictures[int(np.argmax(self.session == k))].conditions for k in range(len(names))]


class _Photographs:
    def __init__(self, pictures: Sequence[Picture], gallery: _Gallery, models: Models, left_out: list[str],
                 progress: Progress):
        self.pictures: list[Picture] = []
        self._gallery, self._models = gallery, models
        rows: dict[str, list] = {name: [] for name in models.synthesizers}
        self.lengths: list[ToldLength | None] = []
        grey, probes = [], []
        embedders = _embedders(models)
        descriptors: dict[str, list[np.ndarray]] = {name: [] for name in embedders}
        for picture in progress(pictures, description="photographs", unit="photograph"):
            try:
                pixels = picture.photograph()
                signature = _signature(pixels.mean(axis=2, dtype=np.float32), picture, GREY)
                own_squares = {name: embedder.photograph_square(pixels, picture.box)[None]
                               for name, embedder in embedders.items()}
            except (SynthesisError, SignatureError, CropError) as error:
                left_out.append(f"{picture.path}: {str(error).removeprefix(f'{picture.path}: ')}")
                continue
            self.pictures.append(picture)
            grey.append(_against([signature], gallery.grey, 1))
            if models.teller is not None:
                self.lengths.append(models.teller.tell([(pixels, picture.box)], picture.class_name))
            for name, embedder in embedders.items():
                descriptors[name].append(embedder.embed(own_squares[name], mirrored=True)[0])
            for name, synthesizer in models.synthesizers.items():
                own, squares = self._synthesized(synthesizer, pixels, picture, left_out)
                rows[name].append(own)
                if name == models.shown and models.embedder is not None:
                    probes.append(squares)
        self.signatures = {name: SignatureTerms(*(np.stack(part) for part in zip(*own))) for name, own in rows.items()
                           if own}
        self.grey = SignatureTerms(*(np.stack(part) for part in zip(*grey))) if grey else None
        self.descriptors = {name: np.stack(own) for name, own in descriptors.items() if own}
        self.probe_descriptors = np.stack(probes) if probes else None

    def _synthesized(self, synthesizer: ProbeSynthesizer, pixels: np.ndarray, picture: Picture,
                     left_out: list[str]) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray | None]:
        """((histogram, mser) (G, K), pooled descriptors (S, D) or None without an embedding)."""
        gallery, embedder = self._gallery, self._models.embedder
        terms = np.full((2, len(gallery.pictures), PROBES_EACH), np.nan, np.float32)
        pools = None if embedder is None else np.full((len(gallery.conditions), gallery.descriptors["own"].shape[1]),
                                                      np.nan, np.float32)
        for number, conditions in enumerate(gallery.conditions):
            try:
                made = synthesizer.synthesize(pixels, conditions, box=picture.box, count=PROBES_EACH,
                                              class_name=picture.class_name)
            except SynthesisError as error:
                left_out.append(f"{picture.path}: {error}")
                break
            columns = np.flatnonzero(gallery.session == number)
            terms[:, columns] = _against([compute_signature(crop, CELSIUS) for crop in made.crops],
                                         gallery.celsius.only(columns), PROBES_EACH)
            if pools is not None:
                whole = (0.0, 0.0, made.squares.shape[2], made.squares.shape[1])
                squares = np.stack([square_crop(square, whole, embedder.size_px, margin=1.0)
                                    for square in made.squares])
                pools[number] = pooled(embedder.embed(squares))
        return tuple(terms), pools


def _embedders(models: Models) -> dict[str, Embedder]:
    own = {} if models.embedder is None else {"own": models.embedder}
    return own | {name: embedder for name, embedder in dict(models.baselines).items() if embedder is not None}


def _signature(values: np.ndarray, picture: Picture, scale: ValueScale) -> ThermalSignature:
    detection = Detection(CLASS_NAMES.index(picture.class_name), 1.0, *picture.box)
    return compute_signature(crop_box(values, detection), scale)


def _against(probes: Sequence[ThermalSignature], gallery: SignatureTable, most: int) -> np.ndarray:
    """float32 (2, G, most), the terms of each probe, NaN beyond their number."""
    table = SignatureTable.of(probes)
    terms = np.full((2, len(gallery), most), np.nan, np.float32)
    terms[0, :, :len(table)] = histogram_distances(table, gallery).T
    terms[1, :, :len(table)] = mser_distances(table, gallery).T
    return terms
